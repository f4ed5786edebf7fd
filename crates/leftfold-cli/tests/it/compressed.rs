//! Importing compressed files.
//!
//! **Owns:** damage and limits of compression. **Does not know:** what lines mean.

use std::{io::Write, path::Path};

use crate::{
    import::{import, lines},
    leftfold, printed, said,
};

/// Lines of events whose data a flipped bit changes to other data.
fn sums() -> String {
    let line = |n: u32| {
        let sum = n * 7_919 % 97;
        format!("{{\"stream\":\"s\",\"type\":\"T\",\"data\":\"sum-{n:02}-{sum}\"}}\n")
    };
    (0..20).map(line).collect()
}

/// Compressed without compression, so that a line can be found in it.
fn zstd(text: &str) -> Vec<u8> {
    let level = ruzstd::encoding::CompressionLevel::Uncompressed;
    ruzstd::encoding::compress_to_vec(text.as_bytes(), level)
}

/// As [`zstd`].
fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The file with one bit of a line of it flipped.
fn flipped(mut file: Vec<u8>, line: &str) -> Vec<u8> {
    let at = file
        .windows(line.len())
        .position(|bytes| bytes == line.as_bytes());
    let last = file.get_mut(at.unwrap() + line.len() - 1);
    *last.unwrap() ^= 1;
    file
}

fn stored(data: &Path) -> usize {
    printed(leftfold(data, &["read"])).lines().count()
}

#[test]
fn a_compressed_file_of_which_a_bit_flipped_is_refused_and_none_of_it_is_stored() {
    let place = tempfile::tempdir().unwrap();
    // Many batches of an import stand before the end.
    let text = sums() + &lines(0..5_000);
    for (name, whole) in [("events.gz", gzip(&text)), ("events.zst", zstd(&text))] {
        let (file, data) = (place.path().join(name), place.path().join("data"));
        std::fs::create_dir_all(&data).unwrap();
        printed(import(&data, lines(0..1), &[]));
        std::fs::write(&file, flipped(whole.clone(), "sum-03")).unwrap();
        let path = file.to_str().unwrap();
        let refused = said(leftfold(&data, &["import", path]), 1);
        assert!(
            refused.contains("is damaged, nothing is imported"),
            "{refused}"
        );
        assert!(refused.contains(name), "{refused}");
        assert_eq!(stored(&data), 1);
        std::fs::write(&file, whole).unwrap();
        printed(leftfold(&data, &["import", path]));
        std::fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn lines_before_the_end_of_a_compressed_file_that_breaks_off_are_stored() {
    let place = tempfile::tempdir().unwrap();
    let mut broken_off = gzip(&sums());
    broken_off.truncate(broken_off.len() / 2);
    let file = place.path().join("events.gz");
    std::fs::write(&file, broken_off).unwrap();
    let data = tempfile::tempdir().unwrap();
    let arguments = ["import", file.to_str().unwrap()];
    let refused = said(leftfold(data.path(), &arguments), 1);
    assert!(refused.contains("is refused"), "{refused}");
    assert!((1..20).contains(&stored(data.path())));
}

#[test]
fn zeros_behind_a_gzip_member_are_padding_and_anything_else_is_refused() {
    let padding = vec![0; 100_000];
    let (one, two) = (lines(0..20), lines(20..40));
    let data = tempfile::tempdir().unwrap();
    let padded = [gzip(&one), padding.clone(), gzip(&two), padding].concat();
    let said_so = printed(import(data.path(), padded, &[]));
    assert!(said_so.starts_with("40 events imported"), "{said_so}");
    let data = tempfile::tempdir().unwrap();
    let followed = [gzip(&one), b"\0\0{}\n".to_vec()].concat();
    said(import(data.path(), followed, &[]), 1);
    assert_eq!(stored(data.path()), 20);
}

#[test]
fn compressed_input_of_which_a_bit_flipped_is_refused_whole_if_it_can_be_read_once_only() {
    // Many batches of an import stand before the end.
    let text = sums() + &lines(0..5_000);
    for whole in [gzip(&text), zstd(&text)] {
        let data = tempfile::tempdir().unwrap();
        printed(import(data.path(), lines(0..1), &[]));
        for sum in ["sum-03", "sum-19"] {
            let refused = said(import(data.path(), flipped(whole.clone(), sum), &[]), 1);
            let expected = "standard input is damaged, nothing is imported";
            assert!(refused.contains(expected), "{refused}");
            assert_eq!(stored(data.path()), 1);
        }
        printed(import(data.path(), [whole.clone(), whole].concat(), &[]));
    }
}

/// A zstd frame of one block that repeats a byte, with this window descriptor.
fn zstd_of_one_byte(window: u8, times: u32) -> Vec<u8> {
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, window];
    let blocks = (0..times).flat_map(|block| {
        let is_last = u32::from(block + 1 == times);
        let header = (128 * 1024) << 3 | 1 << 1 | is_last;
        let [a, b, c, _] = header.to_le_bytes();
        [a, b, c, b'\n']
    });
    frame.into_iter().chain(blocks).collect()
}

#[test]
fn a_zstd_file_that_asks_for_more_memory_than_zstd_allows_is_refused_by_both_sizes() {
    let data = tempfile::tempdir().unwrap();
    // 128 MiB, as `zstd --long` writes.
    printed(import(data.path(), zstd_of_one_byte(17 << 3, 20), &[]));
    for window in [17 << 3 | 1, 0xff] {
        let refused = said(import(data.path(), zstd_of_one_byte(window, 20), &[]), 1);
        assert!(
            refused.contains("134217728") && refused.contains("window"),
            "{refused}"
        );
    }
    let single_segment = [
        0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0,
    ];
    let refused = said(import(data.path(), single_segment, &[]), 1);
    assert!(refused.contains("4294967296"), "{refused}");
}
