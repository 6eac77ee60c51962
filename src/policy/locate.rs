//! Where in the file each key stands, so that every fault names its line.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The keys of a file, as `copy[0].s3.bucket`, with their places.
pub(super) struct Places {
    line_starts: Vec<usize>,
    places: Vec<Place>,
}

struct Place {
    key: String,
    /// Of the key's own text; for an item of a list, of its value.
    name: Range<usize>,
    value: Range<usize>,
}

impl Places {
    /// Finds the keys of a text; none in a text that is not TOML.
    pub(super) fn new(text: &str) -> Self {
        let line_starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let mut found = Self { line_starts: line_starts.collect(), places: Vec::new() };
        if let Ok(table) = DeTable::parse(text) {
            found.add_table(table.get_ref(), "");
        }
        found
    }

    /// Returns the line of a key, counted from 1; for a key that is not written, the line of the table it belongs to.
    pub(super) fn line_of(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            if let Some(place) = self.places.iter().find(|place| place.key == key) {
                return self.line_at(place.name.start);
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = key.get(..end).unwrap_or_default(),
                None => return 1,
            }
        }
    }

    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset) + 1
    }

    /// Returns the innermost key whose name or value stands at an offset.
    pub(super) fn key_at(&self, offset: usize) -> Option<&str> {
        let hits = self.places.iter().filter(|place| place.name.contains(&offset) || place.value.contains(&offset));
        hits.max_by_key(|place| place.key.len()).map(|place| place.key.as_str())
    }

    fn add_table(&mut self, table: &DeTable<'_>, above: &str) {
        for (name, value) in table {
            let key = if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
            self.add_value(value.get_ref(), &key);
            self.places.push(Place { key, name: name.span(), value: value.span() });
        }
    }

    fn add_value(&mut self, value: &DeValue<'_>, key: &str) {
        match value {
            DeValue::Table(table) => self.add_table(table, key),
            DeValue::Array(items) => {
                for (rank, item) in items.iter().enumerate() {
                    let key = format!("{key}[{rank}]");
                    self.add_value(item.get_ref(), &key);
                    self.places.push(Place { key, name: item.span(), value: item.span() });
                }
            }
            _ => {}
        }
    }
}
