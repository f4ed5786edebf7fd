//! Importing, again and again.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use leftfold_model::{RecordedEvent, Revision};
use leftfold_server::json::{ExportReader, ExportWriter};
use leftfold_store::LogEntry;

use crate::{leftfold, printed, said};

pub(crate) fn import(
    data: &Path,
    lines: impl Into<Vec<u8>>,
    rest: &[&str],
) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("leftfold").unwrap();
    command
        .args(["import", "-", "--data"])
        .arg(data)
        .args(rest)
        .write_stdin(lines)
        .assert()
}

pub(crate) fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|n| {
            format!(
                "{{\"stream\":\"s-{}\",\"type\":\"T\",\"data\":{{\"n\":{n}}}}}\n",
                n % 7
            )
        })
        .collect()
}

#[test]
fn an_import_run_again_stores_every_line_once() {
    let data = tempfile::tempdir().unwrap();
    assert!(
        printed(import(data.path(), lines(0..3_000), &[]))
            .starts_with("3000 events imported, 0 were")
    );
    assert!(
        printed(import(data.path(), lines(0..3_000), &[]))
            .starts_with("0 events imported, 3000 were")
    );
    // A longer version of the file, in other batches, adds what is new.
    let longer = printed(import(data.path(), lines(0..3_500), &["--batch", "77"]));
    assert!(
        longer.starts_with("500 events imported, 3000 were"),
        "{longer}"
    );
    let exported = printed(leftfold(data.path(), &["export", "--plain"]));
    assert_eq!(exported.lines().count(), 3_500);
    assert!(
        exported
            .lines()
            .zip(0..)
            .all(|(line, n)| line.ends_with(&format!("\"data\":{{\"n\":{n}}}}}")))
    );
}

#[test]
fn an_export_imported_and_exported_again_is_the_same_bytes() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let given = concat!(
        "{\"stream\":\"a-1\",\"type\":\"T\",\"data\":{ \"x\" : 1.50 },\"metadata\":[1],\"tags\":[\"q\",\"p\"]}\n",
        "{\"stream\":\"b-1\",\"type\":\"T\",\"data_base64\":\"AP8=\",\"content_type\":\"application/octet-stream\"}\n",
        "\n",
        "{\"stream\":\"a-1\",\"type\":\"U\",\"time\":\"2020-02-29T23:59:59.000001Z\"}\n",
    );
    printed(import(first.path(), given, &[]));
    let exported = printed(leftfold(first.path(), &["export"]));
    assert!(
        exported.contains("{ \"x\" : 1.50 }") && exported.contains("2020-02-29T23:59:59.000001Z"),
        "{exported}"
    );
    printed(import(second.path(), exported.as_str(), &[]));
    assert_eq!(printed(leftfold(second.path(), &["export"])), exported);
    assert_eq!(printed(leftfold(first.path(), &["export", "-"])), exported);
    let file = first.path().with_extension("jsonl");
    leftfold(first.path(), &["export", file.to_str().unwrap()]).success();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), exported);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_bad_line_stops_the_import_with_its_number_and_keeps_what_stands_before_it() {
    let data = tempfile::tempdir().unwrap();
    let bad = format!("{}{{\"stream\":\"s\"}}\n{}", lines(0..10), lines(10..20));
    let refused = said(import(data.path(), bad, &[]), 1);
    assert!(refused.contains("line 11 is refused"), "{refused}");
    assert_eq!(
        printed(leftfold(data.path(), &["read"])).lines().count(),
        10
    );
}

#[test]
fn a_stream_that_others_wrote_to_meanwhile_is_not_mixed_up() {
    let data = tempfile::tempdir().unwrap();
    printed(import(data.path(), lines(0..7), &[]));
    printed(leftfold(
        data.path(),
        &["append", "--stream", "s-3", "--type", "Other"],
    ));
    let refused = said(import(data.path(), lines(0..14), &[]), 1);
    assert!(refused.contains("stream s-3 holds event"), "{refused}");
}

#[test]
fn whatever_is_wrong_with_a_line_what_stands_before_it_is_stored_and_it_is_named() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let good = lines(0..2).into_bytes();
    let mut broken_off = gzip(&[&good[..], &[b'x'; 4_096]].concat());
    broken_off.truncate(good.len() + 100);
    let long = vec![b' '; 40 << 20];
    for (what, input) in [
        ("UTF-8", [&good[..], b"\xff\n"].concat()),
        ("longer than", [&good[..], &long].concat()),
        ("not an event", [&good[..], b"{\n"].concat()),
        ("line 3", broken_off),
    ] {
        let data = tempfile::tempdir().unwrap();
        let refused = said(import(data.path(), input, &[]), 1);
        assert!(refused.contains("line 3 is refused"), "{refused}");
        assert!(refused.contains(what), "{refused}");
        let stored = printed(leftfold(data.path(), &["read"]));
        assert_eq!(stored.lines().count(), 2, "{what}");
    }
}

#[test]
fn a_line_that_the_store_refuses_is_named_and_what_stands_before_it_is_stored() {
    let id = "019a0000-0000-7000-8000-000000000001";
    let line = |stream: &str, id: Option<&str>| {
        let id = id.map(|id| format!(",\"id\":\"{id}\"")).unwrap_or_default();
        format!("{{\"stream\":\"{stream}\",\"type\":\"T\"{id}}}\n")
    };
    let twice = line("a-1", Some(id)) + &line("a-1", None) + &line("a-2", Some(id));
    let deleted = line("a-1", None) + &line("a-1", None) + &line("gone-1", None);
    for (what, input, code) in [("019a0000", twice, 3), ("gone-1 is deleted", deleted, 3)] {
        let data = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| printed(leftfold(data.path(), arguments));
        run(&["append", "--stream", "gone-1", "--type", "T"]);
        run(&["delete", "--stream", "gone-1", "--permanent"]);
        let input = input + &line("a-9", None);
        let assert = import(data.path(), input, &[]).code(code);
        let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        let counted = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
        assert!(said.contains("line 3 is refused"), "{said}");
        assert!(said.contains(what), "{said}");
        assert!(counted.starts_with("2 events imported"), "{counted}");
        let streams = run(&["read", "--category", "a"]);
        assert_eq!(streams.lines().count(), 2, "{streams}");
    }
}

#[test]
fn files_of_other_systems_and_compressed_files_are_the_same_events() {
    let plain = lines(0..20);
    let marked = [b"\xef\xbb\xbf", plain.replace('\n', "\r\n").as_bytes()].concat();
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |text: &str| {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(text.as_bytes(), level)
    };
    let skippable = |bytes: u32| {
        let header = [0x50, 0x2a, 0x4d, 0x18]
            .into_iter()
            .chain(bytes.to_le_bytes());
        header.chain((0..bytes).map(|_| b'x')).collect::<Vec<u8>>()
    };
    let data = tempfile::tempdir().unwrap();
    printed(import(data.path(), plain.as_str(), &[]));
    let (one, two) = plain.split_at(plain.find("\n{").unwrap() + 1);
    for other in [
        marked,
        gzip(&plain),
        zstd(&plain),
        [gzip(one), gzip(two)].concat(),
        [zstd(one), zstd(two)].concat(),
        // As programs write them that compress with several threads.
        [
            skippable(4),
            zstd(one),
            skippable(0),
            zstd(two),
            skippable(70_000),
        ]
        .concat(),
    ] {
        let again = printed(import(data.path(), other, &[]));
        assert!(again.starts_with("0 events imported, 20 were"), "{again}");
    }
}

/// A store with 30 sales of which 20 are truncated and scavenged, a deleted stream, and one that was recreated.
fn scavenged() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let sales: String = (0..30)
        .map(|n| {
            format!("{{\"stream\":\"sales-1\",\"type\":\"Sold\",\"tags\":[\"t\"],\"data\":{n}}}\n")
        })
        .collect();
    printed(import(data.path(), sales + &lines(0..14), &[]));
    let run = |arguments: &[&str]| printed(leftfold(data.path(), arguments));
    run(&["metadata", "--stream", "sales-1", r#"{"$tb":20}"#]);
    run(&["delete", "--stream", "s-3"]);
    run(&["delete", "--stream", "s-4"]);
    run(&["append", "--stream", "s-4", "--type", "Again", "{}"]);
    run(&["scavenge"]);
    data
}

#[test]
fn an_exact_export_of_a_scavenged_store_makes_the_same_store() {
    let (source, copy) = (scavenged(), tempfile::tempdir().unwrap());
    let exported = printed(leftfold(source.path(), &["export"]));
    let imported = printed(import(copy.path(), exported.as_str(), &[]));
    assert!(
        imported.starts_with("49 events imported, 0 were"),
        "{imported}"
    );
    assert_eq!(printed(leftfold(copy.path(), &["export"])), exported);
    for command in [
        &["read", "--json"][..],
        &["read", "--stream", "sales-1", "--json"],
        &["read", "--stream", "s-3", "--json"],
        &["read", "--stream", "s-4", "--json"],
        &["streams"],
        &["metadata", "--stream", "s-4"],
    ] {
        let shown = |data: &Path| printed(leftfold(data, command));
        assert_eq!(shown(copy.path()), shown(source.path()), "{command:?}");
    }
    assert!(printed(leftfold(copy.path(), &["verify"])).contains("everything"));
    // Again, and from a longer export.
    let again = printed(import(copy.path(), exported, &[]));
    assert!(again.starts_with("0 events imported, 49 were"), "{again}");
    printed(leftfold(
        source.path(),
        &["append", "--stream", "s-3", "--type", "Back", "{}"],
    ));
    let longer = printed(leftfold(source.path(), &["export"]));
    let imported = printed(import(copy.path(), longer.as_str(), &[]));
    // The event, and the metadata that notes where the recreated stream begins.
    assert!(
        imported.starts_with("2 events imported, 49 were"),
        "{imported}"
    );
    assert_eq!(printed(leftfold(copy.path(), &["export"])), longer);
}

#[test]
fn an_exact_export_that_is_damaged_is_refused_at_its_line_and_keeps_what_stands_before() {
    let source = scavenged();
    let exported = printed(leftfold(source.path(), &["export"]));
    let all: Vec<&str> = exported.lines().collect();
    let without = |index: usize| {
        let mut lines = all.clone();
        lines.remove(index);
        lines.join("\n")
    };
    for (what, input, code, stored) in [
        (
            "line 41 is refused: checksum",
            exported.replace("{\"n\":9}", "{\"n\":8}"),
            1,
            17,
        ),
        ("line 31 is refused: checksum", without(30), 1, 9),
        ("its last line is missing", without(all.len() - 1), 1, 0),
    ] {
        let copy = tempfile::tempdir().unwrap();
        let refused = said(import(copy.path(), input, &[]), code);
        assert!(refused.contains(what), "{what}: {refused}");
        if stored > 0 {
            let read = printed(leftfold(copy.path(), &["read"]));
            assert_eq!(read.lines().count(), stored, "{what}");
        }
    }
    // A store with other events is not written to.
    let other = tempfile::tempdir().unwrap();
    printed(import(other.path(), lines(0..1), &[]));
    let refused = said(import(other.path(), exported, &[]), 1);
    assert!(
        refused.contains("position 1 holds another event"),
        "{refused}"
    );
    assert_eq!(
        printed(leftfold(other.path(), &["read"])).lines().count(),
        1
    );
}

#[test]
fn a_plain_export_of_a_scavenged_store_says_that_it_is_incomplete() {
    let data = scavenged();
    let file = data.path().with_extension("jsonl");
    let to_file = ["export", "--plain", file.to_str().unwrap()];
    let refused = said(leftfold(data.path(), &to_file), 1);
    assert!(refused.contains("events were scavenged"), "{refused}");
    assert!(!file.exists());
    let allowed = printed(leftfold(
        data.path(),
        &["export", "--plain", "--allow-gaps"],
    ));
    assert!(allowed.lines().count() < 49 && allowed.starts_with("{\"stream\":\"sales-1\""));
}

#[test]
fn lines_of_a_stream_that_was_deleted_or_erased_since_are_not_imported_again() {
    let data = tempfile::tempdir().unwrap();
    printed(import(data.path(), lines(0..14), &[]));
    printed(leftfold(data.path(), &["delete", "--stream", "s-3"]));
    let again = printed(import(data.path(), lines(0..14), &[]));
    assert!(again.starts_with("0 events imported, 14 were"), "{again}");
    printed(leftfold(data.path(), &["scavenge"]));
    let again = printed(import(data.path(), lines(0..14), &[]));
    assert!(again.starts_with("0 events imported, 14 were"), "{again}");
    let streams = printed(leftfold(data.path(), &["streams"]));
    assert!(
        !streams.lines().any(|line| line.starts_with("s-3")),
        "{streams}"
    );
}

#[test]
fn a_plain_export_of_a_recreated_stream_is_imported_whatever_lines_go_together() {
    let source = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| printed(leftfold(source.path(), arguments));
    let append = ["append", "--stream", "s-1", "--type", "T"];
    run(&append);
    run(&append);
    run(&["delete", "--stream", "s-1"]);
    run(&append);
    run(&["metadata", "--stream", "s-1", r#"{"owner":"x"}"#]);
    run(&append);
    run(&["append", "--stream", "$$s-1", "--type", "Noted"]);
    run(&[
        "delete",
        "--stream",
        "s-2",
        "--permanent",
        "--expect",
        "none",
    ]);
    run(&["metadata", "--stream", "s-2", r#"{"owner":"y"}"#]);
    let exported = run(&["export", "--plain"]);
    let shown = run(&["read", "--stream", "s-1", "--json"]);
    let lines = exported.lines().count();
    assert_eq!(lines, 12, "{exported}");
    for batch in 1..=lines {
        let copy = tempfile::tempdir().unwrap();
        let batch = batch.to_string();
        let imported = printed(import(copy.path(), exported.as_str(), &["--batch", &batch]));
        let counts: Vec<usize> = imported
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        assert_eq!(counts.iter().sum::<usize>(), lines, "{batch}: {imported}");
        if batch == "1" {
            // The store adds by itself the metadata of the recreation, once again behind what is none, and the tombstone.
            assert_eq!(counts, [9, 3]);
        }
        let read = ["read", "--stream", "s-1", "--json"];
        assert_eq!(printed(leftfold(copy.path(), &read)), shown, "{batch}");
        let copied = printed(leftfold(copy.path(), &["export", "--plain"]));
        assert_eq!(copied, exported, "{batch}");
    }
}

/// Returns a directory, a file in it for an export, and the file that the export writes before that.
fn export_target() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let target = tempfile::tempdir().unwrap();
    let (file, part) = (
        target.path().join("x.jsonl"),
        target.path().join("x.jsonl.part"),
    );
    (target, file, part)
}

#[test]
fn an_export_that_fails_at_its_end_leaves_no_file() {
    let data = tempfile::tempdir().unwrap();
    printed(import(data.path(), lines(0..14), &[]));
    let (target, file, part) = export_target();
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let refused = said(
        leftfold(data.path(), &["export", file.to_str().unwrap()]),
        1,
    );
    assert!(refused.contains("cannot export to"), "{refused}");
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
}

#[test]
fn metadata_of_a_stream_is_printed_as_it_was_set() {
    let data = tempfile::tempdir().unwrap();
    let metadata = r#"{ "z": 1.50, "a": 123456789012345678901234567890 }"#;
    printed(leftfold(
        data.path(),
        &["metadata", "--stream", "s", metadata],
    ));
    let shown = printed(leftfold(data.path(), &["metadata", "--stream", "s"]));
    assert_eq!(shown, format!("{metadata}\n"));
}

#[test]
fn a_file_that_another_export_writes_is_refused_and_a_left_one_replaced() {
    let data = tempfile::tempdir().unwrap();
    printed(import(data.path(), lines(0..14), &[]));
    let (_target, file, part) = export_target();
    std::fs::write(&part, "of an export that was killed\n".repeat(9_999)).unwrap();
    let other = std::fs::File::open(&part).unwrap();
    other.lock().unwrap();
    let export = ["export", file.to_str().unwrap()];
    let refused = said(leftfold(data.path(), &export), 1);
    assert!(
        refused.contains("another export or salvage writes to it")
            && refused.contains("x.jsonl.part"),
        "{refused}"
    );
    assert!(part.exists() && !file.exists());
    drop(other);
    printed(leftfold(data.path(), &export));
    let exported = std::fs::read_to_string(&file).unwrap();
    assert_eq!(exported, printed(leftfold(data.path(), &["export"])));
    assert!(!part.exists());
}

#[test]
fn a_file_within_the_directory_of_the_store_is_refused_because_the_store_would_not_open() {
    let data = tempfile::tempdir().unwrap();
    printed(import(data.path(), lines(0..14), &[]));
    let (within, elsewhere) = (data.path().join("x.jsonl"), tempfile::tempdir().unwrap());
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(data.path(), &link).unwrap();
    for file in [within, link.join("x.jsonl")] {
        for command in ["export", "salvage"] {
            let refused = said(leftfold(data.path(), &[command, file.to_str().unwrap()]), 2);
            assert!(refused.contains("directory of a store"), "{refused}");
        }
    }
    let mut certs = Command::cargo_bin("leftfold").unwrap();
    let refused = said(certs.arg("certs").arg(data.path()).assert(), 2);
    assert!(refused.contains("directory of a store"), "{refused}");
    printed(leftfold(data.path(), &["read"]));
    // Nor is a directory made in it.
    let deeper = data.path().join("tls").join("new");
    let mut certs = Command::cargo_bin("leftfold").unwrap();
    let refused = said(certs.arg("certs").arg(&deeper).assert(), 2);
    assert!(refused.contains("directory of a store"), "{refused}");
    let refused = said(import(&deeper, lines(0..1), &[]), 1);
    assert!(refused.contains("is the directory of a log"), "{refused}");
    printed(leftfold(data.path(), &["read"]));
}

#[test]
fn an_import_that_is_refused_erases_nothing_that_the_store_held() {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    printed(import(source.path(), lines(0..30), &[]));
    let earlier = printed(leftfold(source.path(), &["export"]));
    printed(import(target.path(), earlier.as_str(), &[]));
    for arguments in [
        &["metadata", "--stream", "s-0", r#"{"$tb":3}"#][..],
        &["scavenge"],
    ] {
        printed(leftfold(source.path(), arguments));
    }
    let later = printed(leftfold(source.path(), &["export"]));
    let cut = later.lines().take(29).collect::<Vec<_>>().join("\n");
    let refused = said(import(target.path(), cut, &[]), 1);
    assert!(refused.contains("its last line is missing"), "{refused}");
    assert_eq!(printed(leftfold(target.path(), &["export"])), earlier);
    printed(import(target.path(), later.as_str(), &[]));
    assert_eq!(printed(leftfold(target.path(), &["export"])), later);
}

#[test]
fn an_export_leaves_a_pipe_and_a_link_where_they_are() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let data = tempfile::tempdir().unwrap();
    printed(import(data.path(), lines(0..14), &[]));
    let exported = printed(leftfold(data.path(), &["export"]));
    let through = printed(leftfold(data.path(), &["export", "/dev/stdout"]));
    assert_eq!(through, exported);
    let target = tempfile::tempdir().unwrap();
    let pipe = target.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    // Open for reading and writing, so that neither side waits for the other if the export does not come.
    let mut both = std::fs::OpenOptions::new();
    let mut reader = both.read(true).write(true).open(&pipe).unwrap();
    printed(leftfold(data.path(), &["export", pipe.to_str().unwrap()]));
    assert!(
        std::fs::symlink_metadata(&pipe)
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let mut received = vec![0; exported.len()];
    std::io::Read::read_exact(&mut reader, &mut received).unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), exported);

    let (link, file) = (target.path().join("link"), target.path().join("file"));
    symlink(&file, &link).unwrap();
    let refused = said(
        leftfold(data.path(), &["export", link.to_str().unwrap()]),
        1,
    );
    assert!(refused.contains("cannot export to"), "{refused}");
    std::fs::write(&file, "of yesterday").unwrap();
    printed(leftfold(data.path(), &["export", link.to_str().unwrap()]));
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), exported);
}

#[test]
fn a_line_of_an_exact_export_that_the_store_refuses_is_named_and_what_stands_before_it_is_stored() {
    let source = tempfile::tempdir().unwrap();
    printed(import(source.path(), lines(0..30), &[]));
    let exported = printed(leftfold(source.path(), &["export"]));
    let header = exported.lines().next().unwrap();
    // As another program may write it, with the right checksums.
    let with_changed = |change: &dyn Fn(&mut RecordedEvent)| {
        let mut reader = ExportReader::begin(header).unwrap().unwrap();
        let mut writer = ExportWriter::default();
        let mut changed = vec![writer.header().unwrap()];
        for line in exported.lines().skip(1) {
            let Some(mut entry) = reader.entry(line).unwrap() else {
                continue;
            };
            if let LogEntry::Event(event) = &mut entry
                && event.position.get() == 21
            {
                change(event);
            }
            changed.push(writer.entry(&entry).unwrap());
        }
        changed.push(writer.end().unwrap());
        changed.join("\n")
    };
    let first = exported.lines().nth(1).unwrap();
    let mut reader = ExportReader::begin(header).unwrap().unwrap();
    let first = reader.entry(first).unwrap().unwrap().erased().id;
    for input in [
        with_changed(&|event| event.revision = Revision::new(9)),
        with_changed(&|event| event.id = first),
    ] {
        let copy = tempfile::tempdir().unwrap();
        let ended = import(copy.path(), input, &[]);
        let counted = String::from_utf8(ended.get_output().stdout.clone()).unwrap();
        assert!(counted.starts_with("20 events imported"), "{counted}");
        let refused = said(ended, 3);
        assert!(refused.contains("line 22 is refused"), "{refused}");
        let read = printed(leftfold(copy.path(), &["read"]));
        assert_eq!(read.lines().count(), 20);
        // The right export completes it.
        printed(import(copy.path(), exported.as_str(), &[]));
        assert_eq!(printed(leftfold(copy.path(), &["export"])), exported);
    }
}
