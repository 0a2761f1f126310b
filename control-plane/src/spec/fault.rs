//! What is wrong in something that an operator wrote, where, and what would be right.

use std::{fmt, path::Path, sync::Arc};

use serde::Serialize;

use super::{Kind, ObjectKey};

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: u32,
    pub col: u32,
}

impl Position {
    /// Of what was read from no file.
    pub const NOWHERE: Self = Self { line: 0, col: 0 };
}

/// One fault. Displayed as `file:line:col: Kind/name: field.path: message`, always on one line; parts that are not known are left out, and
/// the place of what stands in no file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    #[serde(serialize_with = "as_text")]
    pub file: Arc<Path>,
    #[serde(flatten)]
    pub position: Position,
    /// Absent: the document could not be read so far as to know.
    pub kind: Option<Kind>,
    /// Absent: not known, or not a valid name.
    pub name: Option<String>,
    /// From the object's root, e.g. `spec.limits[0].rate`; empty: the document as a whole.
    pub path: String,
    pub message: String,
}

impl Fault {
    /// A fault of the file as a whole.
    pub fn of_file(file: &Arc<Path>, message: impl Into<String>) -> Self {
        let position = Position { line: 1, col: 1 };
        Self { file: file.clone(), position, kind: None, name: None, path: String::new(), message: message.into() }
    }

    /// The object at fault. `None`: it cannot be told which, so that any object that the file held before may be meant.
    pub fn key(&self) -> Option<ObjectKey> {
        Some(ObjectKey { kind: self.kind?, name: self.name.as_deref()?.into() })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.position != Position::NOWHERE {
            write!(f, "{}:{}:{}: ", text(&self.file), self.position.line, self.position.col)?;
        }
        match (self.kind, &self.name) {
            (Some(kind), Some(name)) => write!(f, "{kind}/{name}: ")?,
            (Some(kind), None) => write!(f, "{kind}: ")?,
            _ => {}
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// A path as part of a line, whatever its bytes are.
fn text(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "\u{fffd}")
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(path))
}

/// Text of the operator's as part of a message: quoted, on one line, cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
