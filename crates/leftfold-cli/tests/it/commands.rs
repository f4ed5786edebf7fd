//! What each command does with good input.

use assert_cmd::Command;

use crate::{leftfold, printed, said};

#[test]
fn the_demo_ends_with_the_balance_and_goes_on_where_it_was() {
    let data = tempfile::tempdir().unwrap();
    let first = printed(leftfold(data.path(), &["demo"]));
    assert!(first.ends_with("balance: 70\n"), "{first}");
    let second = printed(leftfold(data.path(), &["demo"]));
    assert!(
        second.contains("going on") && second.ends_with("balance: 140\n"),
        "{second}"
    );
    let alone = Command::cargo_bin("leftfold").unwrap().arg("demo").assert();
    assert!(printed(alone).ends_with("balance: 70\n"));
}

#[test]
fn what_is_appended_is_read_in_both_directions_and_listed() {
    let data = tempfile::tempdir().unwrap();
    let append = |stream: &str, kind: &str, rest: &[&str]| {
        let arguments = [&["append", "--stream", stream, "--type", kind], rest].concat();
        printed(leftfold(data.path(), &arguments))
    };
    assert_eq!(
        append(
            "account-1",
            "Opened",
            &["--expect", "none", r#"{"by":"ann"}"#]
        ),
        "position 1, revision 0\n"
    );
    append(
        "account-1",
        "Deposited",
        &[
            "--tag",
            "vip",
            "--metadata",
            r#"{"m":1}"#,
            r#"{"amount":5}"#,
        ],
    );
    append("cart-1", "Opened", &[]);
    let all = printed(leftfold(data.path(), &["read", "--json"]));
    assert_eq!(all.lines().count(), 3);
    assert!(
        all.contains(r#""tags":["vip"],"metadata":{"m":1},"data":{"amount":5}"#),
        "{all}"
    );
    let newest = printed(leftfold(
        data.path(),
        &["read", "--backwards", "--limit", "1"],
    ));
    assert!(newest.contains("cart-1@0"), "{newest}");
    let lines = |arguments: &[&str]| printed(leftfold(data.path(), arguments)).lines().count();
    assert_eq!(lines(&["read", "--type", "Opened"]), 2);
    assert_eq!(lines(&["read", "--tag", "vip"]), 1);
    assert_eq!(lines(&["read", "--stream", "account-1", "--from", "1"]), 1);
    assert_eq!(lines(&["read", "--category", "account"]), 2);
    assert_eq!(lines(&["streams", "--prefix", "ca"]), 1);
    assert_eq!(lines(&["tail", "--after", "1", "--until-caught-up"]), 2);
    let stats = printed(leftfold(data.path(), &["stats", "--json"]));
    assert!(stats.contains(r#""events":3"#), "{stats}");
    assert!(printed(leftfold(data.path(), &["verify"])).contains("as it was written"));
}

#[test]
fn data_comes_from_standard_input_too_and_an_id_makes_it_repeatable() {
    let data = tempfile::tempdir().unwrap();
    for (note, expected) in [
        ("", "position 1, revision 0\n"),
        (" (was stored already)", ""),
    ] {
        let mut command = Command::cargo_bin("leftfold").unwrap();
        command.args([
            "append",
            "--stream",
            "s",
            "--type",
            "T",
            "--id",
            "00000000-0000-0000-0000-000000000007",
            "-",
        ]);
        let said = printed(
            command
                .arg("--data")
                .arg(data.path())
                .write_stdin("{\"n\": 1}\n")
                .assert(),
        );
        assert!(said.contains(note) && said.starts_with(expected), "{said}");
    }
    let read = printed(leftfold(data.path(), &["read", "--json"]));
    assert!(read.contains(r#""data":{"n": 1}"#), "{read}");
}

#[test]
fn a_conflict_ends_with_code_three() {
    let data = tempfile::tempdir().unwrap();
    let append = ["append", "--stream", "s", "--type", "T", "--expect", "none"];
    printed(leftfold(data.path(), &append));
    let refused = said(leftfold(data.path(), &append), 3);
    assert!(
        refused.starts_with("leftfold: stream s is at revision 0, expected no stream"),
        "{refused}"
    );
}

#[test]
fn damage_ends_with_code_four_and_names_file_and_byte() {
    let data = tempfile::tempdir().unwrap();
    printed(leftfold(data.path(), &["demo"]));
    let segment = std::fs::read_dir(data.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let segment = segment
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    if let Some(byte) = bytes.get_mut(120) {
        *byte ^= 1;
    }
    std::fs::write(&segment, bytes).unwrap();
    for command in ["verify", "read"] {
        let damage = said(leftfold(data.path(), &[command]), 4);
        assert!(damage.contains(".seg is damaged at byte 64"), "{damage}");
    }
}

#[test]
fn every_command_has_help_with_an_example_and_shells_get_completions() {
    let help = |command: &str| {
        printed(
            Command::cargo_bin("leftfold")
                .unwrap()
                .args([command, "--help"])
                .assert(),
        )
    };
    for command in [
        "demo", "append", "read", "tail", "streams", "stats", "import", "export", "verify", "bench",
    ] {
        assert!(
            help(command).contains(&format!("leftfold {command}")),
            "{command}"
        );
    }
    assert!(
        printed(
            Command::cargo_bin("leftfold")
                .unwrap()
                .arg("--help")
                .assert()
        )
        .contains("Exit codes:")
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::cargo_bin("leftfold")
            .unwrap()
            .args(["completions", shell])
            .assert();
        assert!(printed(script).contains("leftfold"));
    }
}

#[test]
fn a_deleted_stream_is_gone_and_a_scavenge_gives_its_room_back() {
    let data = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| printed(leftfold(data.path(), arguments));
    for _ in 0..3 {
        run(&[
            "append",
            "--stream",
            "a-1",
            "--type",
            "Noted",
            r#"{"text":"something long enough to matter"}"#,
        ]);
    }
    run(&["append", "--stream", "b-1", "--type", "Noted"]);
    assert_eq!(run(&["metadata", "--stream", "b-1"]), "{}\n");
    run(&[
        "metadata",
        "--stream",
        "b-1",
        "--expect",
        "none",
        r#"{"$maxCount":7,"owner":"ann"}"#,
    ]);
    assert_eq!(
        run(&["metadata", "--stream", "b-1"]),
        "{\"$maxCount\":7,\"owner\":\"ann\"}\n"
    );
    assert_eq!(
        run(&["delete", "--stream", "a-1", "--expect", "2"]),
        "deleted, position 6\n"
    );
    assert_eq!(run(&["streams", "--prefix", "a"]), "");
    let report = run(&["scavenge", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["events"], &report["finished"]),
        (&3.into(), &true.into())
    );
    assert_eq!(
        run(&["scavenge"]),
        "0 events of 1 streams erased, 0 bytes reclaimed\n"
    );
    let all = run(&["read", "--json"]);
    assert!(!all.contains("something long"), "{all}");
    assert!(run(&["verify"]).contains("erased                                  3\n"));
    assert_eq!(
        run(&["append", "--stream", "a-1", "--type", "Noted"]),
        "position 7, revision 3\n"
    );
    run(&["delete", "--stream", "a-1", "--permanent"]);
    leftfold(
        data.path(),
        &["append", "--stream", "a-1", "--type", "Noted"],
    )
    .code(3);
}
