//! Writes tables as text files, as a dump has them, without a server.

use crate::TextArgs;
use crate::fill;
use crate::shape::Shape;
use anyhow::Context as _;
use std::collections::HashMap;
use std::fs;
use std::fs::File;
use std::io::Write as _;

/// A table's file is closed once it is this long, as a dump's.
const FILE_BYTES: u64 = 64 << 20;

struct Open {
    file: File,
    number: u32,
    bytes: u64,
}

/// Writes rows until there are as many bytes as were asked for.
pub(crate) fn write(args: &TextArgs) -> anyhow::Result<()> {
    // What an order brings along is known only about: more shops' worth than needed, and an end at the size.
    let shape = Shape::new(args.seed, args.size + args.size / 2, 0);
    let mut open: HashMap<&str, Open> = HashMap::new();
    let mut bytes = 0;
    for text in fill::all(shape) {
        let name = text.table().name();
        let table = match open.remove(name) {
            Some(table) if table.bytes < FILE_BYTES => table,
            full => {
                let (dir, number) = (args.dir.join(name), full.map_or(0, |full| full.number + 1));
                fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
                Open { file: File::create_new(dir.join(format!("{number:05}.tsv")))?, number, bytes: 0 }
            }
        };
        let mut table = open.entry(name).insert_entry(table);
        table.get_mut().file.write_all(text.bytes())?;
        table.get_mut().bytes += text.len();
        bytes += text.len();
        if bytes >= args.size {
            break;
        }
    }
    println!("wrote {bytes} bytes of rows");
    Ok(())
}
