//! What an export wrote, and how it is loaded.

use std::fmt::Write as _;

use crate::cli::render::shown;
use crate::export::{Exported, Form};
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
    let load = match exported.form {
        Form::Mydumper => format!("cd {dir} && myloader --directory ."),
        Form::Sql => format!("cat {dir}/*.sql | mysql --default-character-set=utf8mb4 --max-allowed-packet=1G"),
    };
    line!(text, "{:<10} {load}", "load with");
    line!(text, "{:<10} it is plaintext: whoever reads these files reads the rows", "");
    text
}
