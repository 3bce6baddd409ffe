//! A data set of image files: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, as ImageNet is commonly laid out.

use super::augment::Cut;
use super::dataset::Split;
use crate::error::{Error, Result};
use crate::picture::{self, Part};
use image::RgbImage;
use std::path::{Path, PathBuf};

/// Folders that hold the images to measure with, in the order in which they are looked for.
const TEST: [&str; 3] = ["val", "validation", "test"];
/// Endings of images.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// The files of one half of a data set. Nothing is decoded before it is asked for.
#[derive(Clone, Debug)]
pub struct Folder {
    /// The folder of the classes' folders.
    root: PathBuf,
    /// Names of the classes, sorted.
    classes: Vec<String>,
    /// Class and name of every file, sorted.
    files: Vec<(u32, Box<str>)>,
    /// Height of the images that come out.
    pub rows: usize,
    /// Their width.
    pub cols: usize,
    /// Share of the shorter side that is cut out where nothing else is asked for.
    pub crop: f64,
}

impl Folder {
    /// Looks for the files in `directory`. Classes are the folders there in the order of their names; there must be `classes` of them, each
    /// with at least one JPEG or PNG. Whatever begins with a dot or has another ending is passed over.
    pub fn read(directory: &Path, split: Split, sides: (usize, usize), crop: f64, classes: usize) -> Result<Folder> {
        let candidates: &[&str] = if split == Split::Train { &["train"] } else { &TEST };
        let root = candidates.iter().map(|name| directory.join(name)).find(|path| path.is_dir()).ok_or_else(|| {
            let expected = candidates.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(" or ");
            Error::file(directory, format!("expected a folder {expected} with a folder for each class, found none"))
        })?;
        let names: Vec<String> = listing(&root)?.into_iter().filter(|name| root.join(name).is_dir()).collect();
        if names.len() != classes {
            let found = names.len();
            return Err(Error::file(&root, format!("expected {classes} folders, one a class, found {found}")));
        }
        let mut files = Vec::new();
        for (class, name) in names.iter().enumerate() {
            let folder = root.join(name);
            let is_image = |file: &String| {
                let ending = Path::new(file).extension().and_then(|e| e.to_str());
                ending.is_some_and(|e| ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(e)))
            };
            let before = files.len();
            files.extend(
                listing(&folder)?.into_iter().filter(is_image).map(|file| (class as u32, file.into_boxed_str())),
            );
            if files.len() == before {
                return Err(Error::file(&folder, "expected JPEG or PNG images of this class, found none"));
            }
        }
        Ok(Folder { root, classes: names, files, rows: sides.0, cols: sides.1, crop })
    }

    /// Checks that another half has the same classes.
    pub fn agrees(&self, other: &Folder) -> Result<()> {
        match self.classes.iter().zip(&other.classes).find(|(a, b)| a != b) {
            None => Ok(()),
            Some((here, there)) => Err(Error::file(
                &other.root,
                format!("expected the classes of {}: `{here}` where `{there}` is found", self.root.display()),
            )),
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.files.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
    /// The class of image `n`, which must exist.
    pub fn label(&self, n: usize) -> u32 {
        self.files[n].0
    }
    /// The file of image `n`, which must exist.
    pub fn path(&self, n: usize) -> PathBuf {
        let (class, file) = &self.files[n];
        self.root.join(&self.classes[*class as usize]).join(&**file)
    }

    /// Decodes image `n` and cuts it to its size: `3 x rows x cols` bytes.
    pub fn image(&self, n: usize, cut: Option<Cut>) -> Result<Vec<u8>> {
        let image = picture::read(&self.path(n))?;
        let (rows, cols) = (self.rows as u32, self.cols as u32);
        let image = match cut {
            None => picture::middle(&image, rows, cols, self.crop),
            Some(cut) => {
                picture::resize(&image, cut.part(image.width(), image.height()), (cols, rows), Part::whole(cols, rows))
            }
        };
        Ok(planes(&image))
    }
}

/// Red, green and blue, one plane after the other.
fn planes(image: &RgbImage) -> Vec<u8> {
    (0..3).flat_map(|c| image.pixels().map(move |p| p.0[c])).collect()
}

/// What is in a folder, sorted by name; names that are no text or begin with a dot are left out.
fn listing(folder: &Path) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')) {
            out.push(name.to_owned());
        }
    }
    out.sort_unstable();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn place(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            RgbImage::from_fn(12, 8, |x, y| Rgb([20 * x as u8, 20 * y as u8, 9])).save(&path).expect("writable");
        }
        dir
    }
    fn read(dir: &Path, split: Split, classes: usize) -> std::result::Result<Folder, String> {
        let found = Folder::read(dir, split, (4, 4), 1.0, classes);
        found.map_err(|e| e.to_string().replace(&format!("{}/", dir.display()), ""))
    }

    #[test]
    fn classes_are_the_sorted_folders() {
        let dir = place(&["train/n02/b.png", "train/n02/a.JPG", "train/n10/c.jpeg", "val/n02/x.png", "val/n10/y.png"]);
        std::fs::write(dir.path().join("train/n02/notes.txt"), "no image").expect("writable");
        std::fs::write(dir.path().join("train/readme"), "no folder").expect("writable");
        let train = read(dir.path(), Split::Train, 2).expect("a good data set");
        let names: Vec<(u32, String)> = (0..train.len())
            .map(|n| (train.label(n), train.path(n).file_name().expect("a name").to_string_lossy().into()))
            .collect();
        assert_eq!(names, [(0, "a.JPG".to_owned()), (0, "b.png".to_owned()), (1, "c.jpeg".to_owned())]);
        let test = read(dir.path(), Split::Test, 2).expect("a good data set");
        train.agrees(&test).expect("the same classes");
        // The middle 8 x 8 of 12 x 8, at half the size.
        let image = train.image(1, None).expect("readable");
        let expected = [(0, 50), (3, 170), (32, 9)];
        assert!(image.len() == 3 * 16 && expected.iter().all(|&(n, v)| image[n].abs_diff(v) <= 1), "{image:?}");
        let cut = Cut { area: 1.0, seed: 7 };
        assert_eq!(train.image(1, Some(cut)).expect("readable").len(), 3 * 16);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let dir = place(&["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"]);
        assert_eq!(read(dir.path(), Split::Train, 3).unwrap_err(), "train: expected 3 folders, one a class, found 2");
        let (train, test) =
            (read(dir.path(), Split::Train, 2).expect("good"), read(dir.path(), Split::Test, 2).expect("good"));
        let message = train.agrees(&test).unwrap_err().to_string();
        assert!(
            message.contains("val: expected the classes of") && message.contains("`b` where `c` is found"),
            "{message}"
        );
        std::fs::create_dir(dir.path().join("train/c")).expect("writable");
        let message = read(dir.path(), Split::Train, 3).unwrap_err();
        assert_eq!(message, "train/c: expected JPEG or PNG images of this class, found none");
        std::fs::write(dir.path().join("train/a/1.png"), "no image").expect("writable");
        let message = train.image(0, None).unwrap_err().to_string();
        assert!(message.contains("train/a/1.png: expected a JPEG or PNG image"), "{message}");
        let empty = tempfile::tempdir().expect("a temporary directory");
        let message = read(empty.path(), Split::Test, 2).unwrap_err();
        assert!(message.contains("expected a folder `val` or `validation` or `test`"), "{message}");
    }
}
