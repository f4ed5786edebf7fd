//! Bad input: a message that names the thing, the value and the limit, and nothing written.

use assert_cmd::Command;

use crate::{leftfold, printed, said};

#[test]
fn names_over_their_limits_are_refused_before_anything_is_made() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let long = "s".repeat(1_025);
    let refused = said(
        leftfold(&data, &["append", "--stream", &long, "--type", "T"]),
        2,
    );
    assert!(
        refused.contains("1025 bytes") && refused.contains("STREAM_NAME_BYTES_MAX"),
        "{refused}"
    );
    for arguments in [
        &["append", "--stream", "s", "--type", ""][..],
        &["append", "--stream", "s", "--type", "T", "--id", "seven"],
        &["append", "--stream", "s", "--type", "T", "--expect", "soon"],
        &["append", "--stream", "s"],
        &["read", "--stream", "a", "--category", "b"],
    ] {
        said(leftfold(&data, arguments), 2);
    }
    assert!(!data.exists());
}

#[test]
fn data_that_is_not_json_is_refused_unless_it_is_said_to_be_binary() {
    let data = tempfile::tempdir().unwrap();
    let refused = said(
        leftfold(
            data.path(),
            &["append", "--stream", "s", "--type", "T", "{"],
        ),
        2,
    );
    assert!(refused.contains("data is not JSON"), "{refused}");
    let refused = said(
        leftfold(
            data.path(),
            &["append", "--stream", "s", "--type", "T", "--metadata", "x"],
        ),
        2,
    );
    assert!(refused.contains("metadata is not JSON"), "{refused}");
    printed(leftfold(
        data.path(),
        &[
            "append",
            "--stream",
            "s",
            "--type",
            "T",
            "--content-type",
            "binary",
            "{",
        ],
    ));
}

#[test]
fn a_directory_that_is_not_there_is_not_an_empty_store() {
    let parent = tempfile::tempdir().unwrap();
    for command in ["read", "streams", "stats", "verify", "export"] {
        let refused = said(leftfold(&parent.path().join("typo"), &[command]), 1);
        assert!(refused.contains("no directory at"), "{refused}");
    }
}

#[test]
fn a_foreign_file_is_named() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("notes.txt"), "").unwrap();
    let refused = said(leftfold(data.path(), &["read"]), 1);
    assert!(refused.contains("\"notes.txt\""), "{refused}");
}

#[test]
fn too_many_tags_are_refused_with_the_limit() {
    let data = tempfile::tempdir().unwrap();
    let tags: Vec<String> = (0..65).map(|n| format!("--tag=t{n}")).collect();
    let mut arguments = vec!["append", "--stream", "s", "--type", "T"];
    arguments.extend(tags.iter().map(String::as_str));
    let refused = said(leftfold(data.path(), &arguments), 2);
    assert!(
        refused.contains("65 tags") && refused.contains("TAGS_PER_EVENT_MAX"),
        "{refused}"
    );
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let data = tempfile::tempdir().unwrap();
    let lines: String = (0..20_000)
        .map(|n| format!("{{\"stream\":\"s\",\"type\":\"T\",\"data\":{n}}}\n"))
        .collect();
    let mut import = Command::cargo_bin("leftfold").unwrap();
    printed(
        import
            .args(["import", "-", "--data"])
            .arg(data.path())
            .write_stdin(lines)
            .assert(),
    );
    let binary = assert_cmd::cargo::cargo_bin("leftfold");
    let script = format!(
        "{} read --data {} | head -n 1; exit ${{PIPESTATUS[0]}}",
        binary.display(),
        data.path().display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// Gives these addresses to commands that make a store: each is refused, without its password, and nothing is made.
fn refuses_addresses(addresses: &[&str], because: &str) {
    let parent = tempfile::tempdir().unwrap();
    for address in addresses {
        for command in [
            &["append", "--stream", "s", "--type", "T"][..],
            &["read"],
            &["serve"],
            &["demo"],
        ] {
            let mut leftfold = Command::cargo_bin("leftfold").unwrap();
            let run = leftfold.current_dir(parent.path()).args(command);
            let refused = said(run.args(["--data", address]).assert(), 2);
            assert!(refused.contains(because), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn an_address_of_an_unknown_scheme_is_refused_and_makes_no_directory() {
    let addresses = [
        "mysql://ann:secret@host/db",
        "postgress://ann:secret@host/db",
    ];
    refuses_addresses(&addresses, "unknown scheme");
}

#[test]
fn an_address_without_its_slashes_is_refused_and_makes_no_directory() {
    let addresses = [
        "postgres:/ann:secret@host/db",
        "mongodb:host/db",
        "Postgresql:host",
        "postgres//ann:secret@host/db",
        "mongodb+srv//host/db",
    ];
    refuses_addresses(&addresses, "address incomplete");
}

#[test]
fn an_address_in_place_of_a_file_is_refused_and_makes_none() {
    let parent = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut leftfold = Command::cargo_bin("leftfold").unwrap();
        leftfold.current_dir(parent.path()).args(arguments).assert()
    };
    let append = ["append", "--stream", "s", "--type", "T"];
    printed(run(&[&append[..], &["--data", "store"]].concat()));
    for arguments in [
        &["certs", "mysql://ann:secret@host"][..],
        &["certs", "postgres:/ann:secret@host"],
        &["export", "--data", "store", "mongodb:ann:secret@host"],
        &["salvage", "--data", "store", "mongodb:ann:secret@host"],
        &["import", "--data", "new", "postgres://ann:secret@host/db"],
        &["serve", "--memory", "--config", "mongodb://ann:secret@host"],
        &["doctor", "--config", "postgres://ann:secret@host/db"],
    ] {
        let refused = said(run(arguments), 2);
        assert!(refused.contains("address of a store"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    printed(run(&["export", "--data", "store", "./mongodb:export"]));
    // With a path in front it is a directory, also where it looks like an address.
    printed(run(&[&append[..], &["--data", "./postgres://x"]].concat()));
    assert!(parent.path().join("postgres:").join("x").is_dir());
}

#[test]
fn what_a_terminal_would_act_on_is_escaped_in_what_an_invalid_command_line_is_told() {
    let data = tempfile::tempdir().unwrap();
    let hostile = "1\u{1b}]0;x\u{7}\u{9b}2";
    for arguments in [
        &["read", "--limit", hostile][..],
        &["groups", "show", "s", hostile],
        &["read", hostile],
    ] {
        let refused = said(leftfold(data.path(), arguments), 2);
        assert!(
            !refused.contains(['\u{1b}', '\u{7}', '\u{9b}']),
            "{refused:?}"
        );
        // The parser itself leaves whole sequences out.
        assert!(refused.contains("\\u{9b}2"), "{refused:?}");
    }
    // And in what is said of a path that was taken.
    let directory = data.path().join(hostile);
    let mut certs = Command::cargo_bin("leftfold").unwrap();
    let said = printed(certs.arg("certs").arg(directory).assert());
    assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{said:?}");
}

/// An issuer of tokens. Without TLS, authentication is off, and no token would count.
const ISSUER: &str = "https://login.example";

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let data = tempfile::tempdir().unwrap();
    for arguments in [
        &["serve", "--memory"][..],
        &["metadata", "--stream", "s", "--expect", "none"],
        &["migrate"],
        &["serve", "--tls-key-file", "key.pem"],
        &["serve", "--tls-client-ca-file", "ca.pem"],
        &["serve", "--jwt-audience", "shop"],
        &["serve", "--jwt-audience", "shop", "--jwt-issuer", ISSUER],
        &["serve", "--admin-password-file", "password"],
    ] {
        said(leftfold(data.path(), arguments), 2);
    }
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);
}

#[test]
fn an_error_ends_with_a_code_that_explain_explains() {
    let data = tempfile::tempdir().unwrap();
    let append = &[
        "append", "--stream", "s", "--type", "T", "--expect", "7", "1",
    ];
    let refused = said(leftfold(data.path(), append), 3);
    assert!(
        refused.ends_with("leftfold: error LF0002; `leftfold explain LF0002` says what to do\n")
    );
    let explain = |arguments: &[&str]| {
        let mut leftfold = Command::cargo_bin("leftfold").unwrap();
        leftfold.arg("explain").args(arguments).assert()
    };
    let page = printed(explain(&["lf0002"]));
    assert!(
        page.starts_with("# LF0002: Wrong expected revision"),
        "{page}"
    );
    assert!(printed(explain(&[])).contains("LF0002  Wrong expected revision\n"));
    said(explain(&["LF9999"]), 2);
}

#[test]
fn a_stream_that_only_other_servers_keep_is_refused_and_does_not_look_empty() {
    let data = tempfile::tempdir().unwrap();
    let append = |stream: &str| {
        let event = ["append", "--stream", stream, "--type", "Noted", "{}"];
        printed(leftfold(data.path(), &event));
    };
    append("account-1");
    for stream in ["$ce-account", "$et-Noted", "$streams", "$all"] {
        for command in [
            &["read", "--stream", stream][..],
            &[
                "tail",
                "--stream",
                stream,
                "--after",
                "0",
                "--until-caught-up",
            ],
        ] {
            let refused = said(leftfold(data.path(), command), 1);
            assert!(
                refused.contains(stream) && refused.contains("not kept"),
                "{refused}"
            );
        }
    }
    append("$ce-account");
    let shown = printed(leftfold(data.path(), &["read", "--stream", "$ce-account"]));
    assert_eq!(shown.lines().count(), 1);
}
