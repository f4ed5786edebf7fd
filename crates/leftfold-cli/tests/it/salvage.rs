//! Damaged stores, and directories that are only read.

use std::{fs, path::Path};

use crate::{leftfold, printed, said};

/// A store of three events, and where its only segment is.
fn stored() -> (tempfile::TempDir, std::path::PathBuf) {
    let data = tempfile::tempdir().unwrap();
    for number in ["one", "two", "three"] {
        let event = [
            "append",
            "--stream",
            "a-1",
            "--type",
            "Noted",
            &format!("\"{number}\""),
        ];
        printed(leftfold(data.path(), &event));
    }
    let segment = fs::read_dir(data.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"));
    (data, segment.unwrap())
}

#[test]
fn events_are_salvaged_to_standard_output_from_within_the_directory_of_the_store() {
    let (data, _) = stored();
    let mut command = assert_cmd::Command::cargo_bin("leftfold").unwrap();
    command.args(["salvage", "--data", ".", "-"]);
    let saved = printed(command.current_dir(data.path()).assert());
    assert_eq!(saved.lines().count(), 3);
}

#[test]
fn one_flipped_bit_costs_one_event_and_opening_says_what_helps() {
    let (data, segment) = stored();
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(3).position(|bytes| bytes == b"two").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    for command in [&["read"][..], &["append", "--stream", "b", "--type", "T"]] {
        let refused = said(leftfold(data.path(), command), 4);
        assert!(refused.contains("leftfold salvage --data"), "{refused}");
        assert!(refused.contains("leftfold export --url"), "{refused}");
    }
    let (file, copy) = (
        data.path().with_extension("jsonl"),
        tempfile::tempdir().unwrap(),
    );
    let path = file.to_str().unwrap();
    let message = said(leftfold(data.path(), &["salvage", path]), 4);
    assert!(
        message.contains("positions 2 to 2 are missing"),
        "{message}"
    );
    assert!(message.contains("2 events saved"), "{message}");
    let saved = fs::read_to_string(&file).unwrap();
    assert!(saved.contains("one") && saved.contains("three") && saved.contains("\"position\":3"));
    printed(leftfold(copy.path(), &["import", path]));
    assert_eq!(printed(leftfold(copy.path(), &["read"])).lines().count(), 2);
    let again = said(leftfold(data.path(), &["salvage", path]), 1);
    assert!(again.contains("cannot create"), "{again}");
    fs::remove_file(file).unwrap();
}

#[test]
fn verify_and_opening_name_one_byte_of_a_damaged_store() {
    let (data, segment) = stored();
    let sound = fs::read(&segment).unwrap();
    for text in [b"one".as_slice(), b"two", b"three"] {
        let mut bytes = sound.clone();
        let at = bytes.windows(text.len()).position(|found| found == text);
        bytes[at.unwrap()] ^= 1;
        fs::write(&segment, bytes).unwrap();
        let place = |command: &str| {
            let refused = said(leftfold(data.path(), &[command]), 4);
            let place = refused.split("is damaged at byte ").nth(1).unwrap();
            place.split(':').next().unwrap().to_owned()
        };
        assert_eq!(place("verify"), place("read"), "{text:?}");
    }
}

#[test]
fn commands_that_read_leave_the_directory_as_it_is() {
    let (data, _) = stored();
    fs::create_dir(data.path().join("lost+found")).unwrap();
    let content = |directory: &Path| {
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = content(data.path());
    for command in [
        &["read"][..],
        &["export"],
        &["stats"],
        &["streams"],
        &["verify"],
        &["metadata", "--stream", "a-1"],
        &["salvage", "-"],
    ] {
        printed(leftfold(data.path(), command));
        assert_eq!(content(data.path()), before, "{command:?}");
    }
}

#[test]
fn a_salvage_that_fails_leaves_no_file_in_the_way_of_the_next() {
    let (data, segment) = stored();
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("events.jsonl");
    let path = file.to_str().unwrap();
    let hidden = segment.with_extension("tmp");
    let (marker, aside) = (
        data.path().join("clean-stop"),
        data.path().join("lost+found"),
    );
    fs::rename(&segment, &hidden).unwrap();
    fs::rename(&marker, &aside).unwrap();
    let refused = said(leftfold(data.path(), &["salvage", path]), 1);
    assert!(
        refused.contains("foreign") || refused.contains("not a file of a log"),
        "{refused}"
    );
    assert!(!file.exists());
    fs::rename(&hidden, &segment).unwrap();
    fs::rename(&aside, &marker).unwrap();
    printed(leftfold(data.path(), &["salvage", path]));
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3);
}

#[test]
fn a_salvage_has_its_name_only_when_it_is_complete_and_is_written_by_one_command() {
    let (data, _) = stored();
    let target = tempfile::tempdir().unwrap();
    let (file, part) = (
        target.path().join("x.jsonl"),
        target.path().join("x.jsonl.part"),
    );
    fs::write(&part, "of an export that goes on").unwrap();
    let other = fs::File::open(&part).unwrap();
    other.lock().unwrap();
    let salvage = ["salvage", file.to_str().unwrap()];
    let refused = said(leftfold(data.path(), &salvage), 1);
    assert!(refused.contains("x.jsonl.part is in use"), "{refused}");
    assert!(!file.exists());
    drop(other);
    fs::remove_file(&part).unwrap();
    // Where it ends, it has not been seen under its name.
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let refused = said(leftfold(data.path(), &salvage), 1);
    assert!(refused.contains("cannot salvage"), "{refused}");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    printed(leftfold(data.path(), &salvage));
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3);
    assert!(!part.exists());
}

#[test]
fn a_salvage_of_a_store_whose_segments_are_gone_names_what_is_missing() {
    let (data, segment) = stored();
    fs::remove_file(segment).unwrap();
    let message = said(leftfold(data.path(), &["salvage", "-"]), 4);
    assert!(
        message.contains("positions 1 to 3 are missing"),
        "{message}"
    );
    let empty = tempfile::tempdir().unwrap();
    let refused = said(leftfold(empty.path(), &["salvage", "-"]), 1);
    assert!(refused.contains("holds no log"), "{refused}");
}

#[test]
fn commands_that_need_a_store_make_none_of_an_empty_directory() {
    let data = tempfile::tempdir().unwrap();
    for command in [
        &["scavenge"][..],
        &["delete", "--stream", "a-1"],
        &["consumers", "list"],
        &["groups", "list"],
        &["users", "list"],
        &["keys", "list"],
        &["salvage", "-"],
        &["audit"],
        &["tail", "--until-caught-up"],
        &["metadata", "--stream", "a-1"],
    ] {
        let refused = said(leftfold(data.path(), command), 1);
        assert!(refused.contains("holds no log"), "{command:?}: {refused}");
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0, "{command:?}");
    }
}

#[test]
fn commands_that_read_make_no_store_of_an_empty_directory() {
    let data = tempfile::tempdir().unwrap();
    for command in [
        &["read"][..],
        &["export"],
        &["stats"],
        &["streams"],
        &["verify"],
    ] {
        let refused = said(leftfold(data.path(), command), 1);
        assert!(refused.contains("holds no log"), "{command:?}: {refused}");
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0, "{command:?}");
    }
}

#[test]
fn a_salvage_writes_into_a_pipe_or_a_device() {
    use std::os::unix::fs::FileTypeExt;
    let (data, _) = stored();
    let saved = printed(leftfold(data.path(), &["salvage", "-"]));
    assert_eq!(
        printed(leftfold(data.path(), &["salvage", "/dev/stdout"])),
        saved
    );
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    // Open for reading and writing, so that neither side waits for the other if the salvage does not come.
    let mut both = fs::OpenOptions::new();
    let mut reader = both.read(true).write(true).open(&pipe).unwrap();
    printed(leftfold(data.path(), &["salvage", pipe.to_str().unwrap()]));
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    let mut received = vec![0; saved.len()];
    std::io::Read::read_exact(&mut reader, &mut received).unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), saved);
}
