//! Importing, again and again.

use std::path::Path;

use assert_cmd::Command;

use crate::{leftfold, printed, said};

fn import(data: &Path, lines: &str, rest: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("leftfold").unwrap();
    command
        .args(["import", "-", "--data"])
        .arg(data)
        .args(rest)
        .write_stdin(lines)
        .assert()
}

fn lines(numbers: std::ops::Range<u32>) -> String {
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
        printed(import(data.path(), &lines(0..3_000), &[]))
            .starts_with("3000 events imported, 0 were")
    );
    assert!(
        printed(import(data.path(), &lines(0..3_000), &[]))
            .starts_with("0 events imported, 3000 were")
    );
    // A longer version of the file, in other batches, adds what is new.
    let longer = printed(import(data.path(), &lines(0..3_500), &["--batch", "77"]));
    assert!(
        longer.starts_with("500 events imported, 3000 were"),
        "{longer}"
    );
    let exported = printed(leftfold(data.path(), &["export"]));
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
    printed(import(second.path(), &exported, &[]));
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
    let refused = said(import(data.path(), &bad, &[]), 1);
    assert!(refused.contains("line 11 is refused"), "{refused}");
    assert_eq!(
        printed(leftfold(data.path(), &["read"])).lines().count(),
        10
    );
}

#[test]
fn a_stream_that_others_wrote_to_meanwhile_is_not_mixed_up() {
    let data = tempfile::tempdir().unwrap();
    printed(import(data.path(), &lines(0..7), &[]));
    printed(leftfold(
        data.path(),
        &["append", "--stream", "s-3", "--type", "Other"],
    ));
    let refused = said(import(data.path(), &lines(0..14), &[]), 1);
    assert!(refused.contains("stream s-3 holds event"), "{refused}");
}
