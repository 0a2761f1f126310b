//! Where each field of an object stands in its file.

use super::{
    fault::Position,
    yaml::{Node, Value},
};

/// Field path -> place of the value. Sorted, and as small as strings allow: every object in the store carries one.
#[derive(Debug)]
pub(super) struct Positions(Box<[(Box<str>, Position)]>);

impl Positions {
    pub(super) fn of(root: &Node) -> Self {
        if root.at == Position::NOWHERE {
            return Self([(Box::default(), root.at)].into());
        }
        let mut places = Vec::new();
        collect(root, &mut String::new(), &mut places);
        places.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Self(places.into())
    }

    /// The place of `path`, or of the nearest of its ancestors that is in the file.
    pub(super) fn nearest(&self, mut path: &str) -> Option<Position> {
        loop {
            if let Ok(found) = self.0.binary_search_by(|(known, _)| (**known).cmp(path)) {
                return Some(self.0[found].1);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

fn collect(node: &Node, path: &mut String, places: &mut Vec<(Box<str>, Position)>) {
    places.push((path.as_str().into(), node.at));
    let parent = path.len();
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                push_index(path, index);
                collect(item, path, places);
                path.truncate(parent);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                let Value::Text(key) = &key.value else { continue };
                push_field(path, key);
                collect(value, path, places);
                path.truncate(parent);
            }
        }
        _ => {}
    }
}

pub(super) fn push_index(path: &mut String, index: usize) {
    path.push_str(&format!("[{index}]"));
}

/// `.name`, or `["…"]` for a key that could be misread as a path.
pub(super) fn push_field(path: &mut String, name: &str) {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        path.push_str(&format!("[{}]", super::fault::quoted(name)));
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}
