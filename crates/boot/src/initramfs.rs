//! What a Linux begins with: an archive with one program in it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// A file that may be executed by everybody.
const PROGRAM: u32 = 0o100_755;

/// Writes an archive whose only file is `program`, by the name `init`.
///
/// # Errors
/// The program cannot be read, or the archive not be written.
pub fn write(program: &Path, archive: &Path) -> io::Result<()> {
    let program = fs::read(program)?;
    let length = u32::try_from(program.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let out = fs::File::create(archive)?;
    let mut file = cpio::newc::Builder::new("init").mode(PROGRAM).nlink(1).write(out, length);
    file.write_all(&program)?;
    cpio::newc::trailer(file.finish()?)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_archive_holds_the_program_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (program, archive) = (folder.path().join("program"), folder.path().join("archive"));
        fs::write(&program, b"seven b").unwrap();
        write(&program, &archive).unwrap();
        let bytes = fs::read(&archive).unwrap();
        assert_eq!(bytes[..6], *b"070701", "Linux takes no other kind without a checksum");
        let mut reader = cpio::NewcReader::new(&bytes[..]).unwrap();
        assert_eq!((reader.entry().name(), reader.entry().mode()), ("init", PROGRAM));
        let mut held = Vec::new();
        reader.read_to_end(&mut held).unwrap();
        assert_eq!(held, b"seven b");
        let next = cpio::NewcReader::new(reader.finish().unwrap()).unwrap();
        assert!(next.entry().is_trailer());
    }
}
