//! What an export wrote, and how it is loaded.

use std::fmt::Write as _;

use crate::cli::render::shown;
use crate::export::Exported;
use crate::human;

pub(in crate::cli) fn exported(exported: &Exported) -> String {
    let mut text = String::new();
    let dir = shown(exported.dir.display());
    line!(
        text,
        "{:<10} {}, {}, {} into {dir} ({} in {})",
        "exported",
        human::counted(exported.tables as u64, "table", "tables"),
        human::counted(exported.rows, "row", "rows"),
        human::counted(exported.objects as u64, "object", "objects"),
        human::bytes(exported.bytes),
        human::counted(exported.files as u64, "file", "files"),
    );
    for omitted in &exported.omitted {
        line!(text, "{:<10} {omitted}", "left out");
    }
    line!(
        text,
        "{:<10} {}",
        "load with",
        exported.form.loaded_by(human::shell_word(&exported.dir.display().to_string()))
    );
    line!(text, "{:<10} it is plaintext: whoever reads these files reads the rows", "");
    text
}
