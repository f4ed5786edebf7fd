//! Files with invalid settings: each has the message beside it that `leftfold serve` refuses it with.

use std::{env, fs, path::Path};

use crate::{said, served::binary};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/invalid_settings");

#[test]
fn each_invalid_file_of_settings_is_refused_with_its_message() {
    let mut different = Vec::new();
    let mut files: Vec<_> = fs::read_dir(FILES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let ran = assert_cmd::Command::new(binary())
            .current_dir(FILES)
            .args(["serve", "--memory", "--config"])
            .arg(file.file_name().unwrap())
            .assert();
        let message = said(ran, 1);
        let beside = file.with_extension("txt");
        if env::var_os("LEFTFOLD_UPDATE").is_some() {
            fs::write(&beside, &message).unwrap();
        }
        if fs::read_to_string(&beside).ok().as_ref() != Some(&message) {
            different.push(format!("{}: {message}", name_of(&file)));
        }
    }
    assert!(
        different.is_empty(),
        "run with LEFTFOLD_UPDATE=1 and look at the difference: {different:#?}"
    );
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}
