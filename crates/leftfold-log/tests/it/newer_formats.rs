//! Files that a newer version wrote, as everything that reads them meets them.

use std::{fs, path::Path, sync::Arc};

use leftfold_log::{
    Log, OpenError, StorageError,
    disk::{Disk, read_only::ReadOnlyDisk},
    salvage, verify,
};
use leftfold_model::Read;

use crate::{
    faults::{names, several_segments},
    story::{directory, open, read, tiny},
};

/// Gives the header of a file a format that nobody knows yet, as a newer version would, with the checksum of what stands in front
/// of it.
fn make_newer(path: &Path, checksum: fn(&[u8]) -> u32) {
    let mut bytes = fs::read(path).unwrap();
    let mut put = |at: usize, number: u32| {
        let field = bytes.get_mut(at..at + 4).unwrap();
        field.copy_from_slice(&number.to_le_bytes());
        checksum(bytes.get(..60).unwrap())
    };
    let crc = put(8, 99);
    put(60, crc);
    fs::write(path, bytes).unwrap();
}

/// The checksum of an index file's header covers the log's id, the range, and the offset too (docs/format.md section 6).
fn of_index(header: &[u8]) -> u32 {
    let seed = crc32c::crc32c(header.get(16..48).unwrap());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &[0; 8]), header)
}

fn is_refused<T: std::fmt::Debug>(result: &Result<T, OpenError>) -> bool {
    matches!(
        result,
        Err(OpenError::NewerFormat { found: 99, .. }
            | OpenError::Storage(StorageError::NewerFormat { found: 99, .. }))
    )
}

#[test]
fn a_file_of_a_newer_format_is_refused_by_name_whatever_reads_the_log() {
    for ending in [".seg", ".idx"] {
        let directory = directory();
        several_segments(&directory, 400);
        assert_eq!(read(&open(&directory), &Read::all()).len(), 400);
        for name in names(&directory, ending) {
            let path = directory.path().join(&name);
            let sound = fs::read(&path).unwrap();
            match ending {
                ".seg" => make_newer(&path, crc32c::crc32c),
                _ => make_newer(&path, of_index),
            }
            let opened = Log::open_read_only(directory.path(), tiny());
            assert!(is_refused(&opened), "{name}: {opened:?}");
            let disk =
                || -> Arc<dyn Disk> { Arc::new(ReadOnlyDisk::at(directory.path()).unwrap()) };
            let verified = verify(&disk(), &mut |_| {});
            assert!(is_refused(&verified), "{name}: {verified:?}");
            if ending == ".seg" {
                let salvaged = salvage(&disk(), &mut |_| Ok::<(), OpenError>(()));
                assert!(is_refused(&salvaged), "{name}: {salvaged:?}");
            }
            fs::write(&path, sound).unwrap();
        }
        assert_eq!(read(&open(&directory), &Read::all()).len(), 400);
    }
}
