//! Files and directories that are written whole or not at all.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes a file: into a temporary one beside it, flushed to the disk, then renamed over `path`. Directories above are made.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let parent = parent(path);
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let mut file = tempfile::Builder::new()
        .prefix(".")
        .suffix(".partial")
        .permissions_if_unix()
        .tempfile_in(&parent)
        .map_err(Error::io("write", path))?;
    put(file.as_file_mut(), path, content)?;
    file.persist(path).map_err(|e| Error::io("write", path)(e.error))?;
    flush_directory(&parent)
}

/// Writes files into a directory, which is made if it is not there: all of them or, if there is no room, none. What else is in it stays.
pub fn write_files(directory: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    let existed = directory.exists();
    fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let write = || {
        let staging = tempfile::Builder::new()
            .prefix(".")
            .suffix(".partial")
            .tempdir_in(directory)
            .map_err(Error::io("write into", directory))?;
        for (name, content) in files {
            let target = staging.path().join(name);
            let mut file = File::create(&target).map_err(Error::io("create", directory.join(name)))?;
            put(&mut file, &directory.join(name), content)?;
        }
        // Nothing is allocated from here on.
        for (name, _) in files {
            let path = directory.join(name);
            fs::rename(staging.path().join(name), &path).map_err(Error::io("write", &path))?;
        }
        flush_directory(directory)
    };
    let written = write();
    if written.is_err() && !existed {
        // Best effort: the error that is told is the first one.
        let _ = fs::remove_dir(directory);
    }
    written
}

/// Makes the directory `path` with these files, replacing an older one of that name.
///
/// On an error nothing stays behind, and an older directory is as it was.
pub fn write_directory(path: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let parent = parent(path);
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let staging = tempfile::Builder::new()
        .prefix(".")
        .suffix(".partial")
        .tempdir_in(&parent)
        .map_err(Error::io("write into", &parent))?;
    for (name, content) in files {
        let target = staging.path().join(name);
        let mut file = File::create(&target).map_err(Error::io("create", path.join(name)))?;
        put(&mut file, &path.join(name), content)?;
    }
    flush_directory(staging.path())?;
    if path.exists() {
        // A directory cannot be renamed over another one that holds files: the old one steps aside first.
        let aside = tempfile::Builder::new()
            .prefix(".")
            .suffix(".old")
            .tempdir_in(&parent)
            .map_err(Error::io("write into", &parent))?;
        let old = aside.path().join("old");
        fs::rename(path, &old).map_err(Error::io("rename", path))?;
        if let Err(e) = fs::rename(staging.path(), path) {
            // Best effort to put it back: the error that is told is the first one.
            let _ = fs::rename(&old, path);
            return Err(Error::io("write", path)(e));
        }
    } else {
        fs::rename(staging.path(), path).map_err(Error::io("write", path))?;
    }
    open_to_readers(path)?;
    // The directory has another name now: nothing to clean up under the old one.
    let _ = staging.keep();
    flush_directory(&parent)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Writes and flushes to the disk; errors name `path`, where the content is to end up.
fn put(file: &mut File, path: &Path, content: &[u8]) -> Result<()> {
    file.write_all(content).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("write", path))
}

/// Makes names in a directory last (only Unix has this).
fn flush_directory(path: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(path).and_then(|d| d.sync_all()).map_err(Error::io("write", path))?;
    }
    Ok(())
}

/// Temporary directories are private; what they become is not.
#[cfg(unix)]
fn open_to_readers(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::io("write", path))
}
#[cfg(not(unix))]
fn open_to_readers(_: &Path) -> Result<()> {
    Ok(())
}

/// Temporary files are private; what they become is not.
trait Readable {
    fn permissions_if_unix(&mut self) -> &mut Self;
}
impl Readable for tempfile::Builder<'_, '_> {
    fn permissions_if_unix(&mut self) -> &mut Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            self.permissions(fs::Permissions::from_mode(0o644))
        }
        #[cfg(not(unix))]
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("readable")
            .map(|e| e.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("deep/report.html");
        write_file(&path, b"one").expect("writable");
        write_file(&path, b"two").expect("writable");
        assert_eq!(fs::read(&path).expect("readable"), b"two");
        assert_eq!(names(&dir.path().join("deep")), ["report.html"]);
    }

    #[test]
    fn several_files_leave_what_else_is_there() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("new/out");
        write_files(&path, &[("a", b"1"), ("b", b"2")]).expect("writable");
        write_files(&path, &[("b", b"3")]).expect("writable");
        assert_eq!(names(&path), ["a", "b"]);
        assert_eq!(fs::read(path.join("b")).expect("readable"), b"3");
    }

    #[test]
    fn where_nothing_can_be_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("file"), "").expect("writable");
        let path = dir.path().join("file/below");
        for e in [write_file(&path, b"x"), write_directory(&path, &[("a", vec![1])])] {
            let message = e.unwrap_err().to_string();
            assert!(message.starts_with("cannot create ") && message.contains("/file"), "{message}");
        }
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_said() {
        let mut full = File::options().write(true).open("/dev/full").expect("Linux has this device");
        let message = put(&mut full, Path::new("out/model.safetensors"), &[0; 10_000]).unwrap_err().to_string();
        assert!(message.starts_with("cannot write out/model.safetensors: No space left on device"), "{message}");
    }

    /// Runs where tests may mount a file system (in containers as root); elsewhere there is no disk to fill.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = |program: &str, args: &[&str]| {
            let output = std::process::Command::new(program).args(args).arg(dir.path()).output();
            output.is_ok_and(|o| o.status.success())
        };
        if !run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs"]) {
            return;
        }
        let path = dir.path().join("c");
        write_directory(&path, &[("a", vec![7; 1000])]).expect("fits");
        let error = write_directory(&path, &[("a", vec![8; 10]), ("b", vec![9; 100_000])]);
        let several = write_files(&path, &[("a", &[8; 10]), ("d", &[9; 100_000])]);
        let elsewhere = write_files(&dir.path().join("e"), &[("a", &[8; 10]), ("d", &[9; 100_000])]);
        let left = (names(dir.path()), fs::read(path.join("a")).expect("readable"), names(&path));
        assert!(run("umount", &[]));
        let message = error.unwrap_err().to_string();
        assert!(message.contains("/c/b: No space left on device"), "{message}");
        for e in [several, elsewhere] {
            let message = e.unwrap_err().to_string();
            assert!(message.contains("/d: No space left on device"), "{message}");
        }
        assert_eq!(left, (vec!["c".to_owned()], vec![7; 1000], vec!["a".to_owned()]));
    }
}
