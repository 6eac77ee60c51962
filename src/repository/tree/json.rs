//! Nodes as JSON, to the byte as Go's `encoding/json` prints restic's: field order, omitted zeros, escapes for HTML.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::{Display, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::entry::{Kind, Metadata, Xattr};
use crate::id::BlobId;
use crate::repository::time;
use crate::repository::tree::quote::{quote, unquote};
use crate::repository::tree::{Node, TreeError};

/// Go's `FileMode` keeps the type and the special bits where Unix does not.
const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const CHAR_DEVICE: u32 = 1 << 21;
/// (Go's bit, Unix's bit) of setuid, setgid and sticky.
const SPECIAL: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];

pub(super) fn print(nodes: &[Node]) -> Vec<u8> {
    // A node of an image is some 400 bytes.
    let mut text = String::with_capacity(nodes.len() * 450 + 16);
    text.push_str("{\"nodes\":[");
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        Printer { text: &mut text }.node(node);
    }
    text.push_str("]}\n");
    text.into_bytes()
}

struct Printer<'a> {
    text: &'a mut String,
}

impl Printer<'_> {
    fn node(&mut self, node: &Node) {
        let metadata = &node.metadata;
        self.text.push_str("{\"name\":");
        self.string(&quote(node.name.as_bytes()));
        self.plain("type", format_args!("\"{}\"", type_name(&metadata.kind)));
        self.number("mode", go_mode(metadata));
        self.time("mtime", &metadata.mtime);
        self.time("atime", &metadata.atime);
        self.time("ctime", &metadata.ctime);
        self.plain("uid", metadata.uid);
        self.plain("gid", metadata.gid);
        self.text_field("user", &metadata.user);
        self.text_field("group", &metadata.group);
        self.number("inode", metadata.inode);
        self.by_kind(metadata);
        self.xattrs(&metadata.xattrs);
        self.device(&metadata.kind);
        self.content(node);
        if let Some(subtree) = &node.subtree {
            self.plain("subtree", format_args!("\"{subtree}\""));
        }
        self.text.push('}');
    }

    /// The fields that only some kinds have. The device tells names of one inode apart from another filesystem's: it is kept only
    /// where there are several, because it changes with each mount.
    fn by_kind(&mut self, metadata: &Metadata) {
        let counts_links = !matches!(metadata.kind, Kind::Dir | Kind::Fifo | Kind::Socket);
        if counts_links && metadata.links > 1 {
            self.number("device_id", metadata.device);
        }
        if metadata.kind == Kind::File {
            self.number("size", metadata.size);
        }
        if counts_links {
            self.number("links", metadata.links);
        }
        if let Kind::Symlink { target } = &metadata.kind {
            self.link_target(target.as_os_str().as_bytes());
        }
    }

    fn link_target(&mut self, target: &[u8]) {
        if target.is_empty() {
            return;
        }
        self.text.push_str(",\"linktarget\":");
        if let Ok(text) = std::str::from_utf8(target) {
            self.string(text);
        } else {
            self.bytes_lossily(target);
            self.plain("linktarget_raw", format_args!("\"{}\"", STANDARD.encode(target)));
        }
    }

    fn xattrs(&mut self, xattrs: &[Xattr]) {
        for (index, xattr) in xattrs.iter().enumerate() {
            let open = if index == 0 { ",\"extended_attributes\":[" } else { "," };
            self.text.push_str(open);
            self.text.push_str("{\"name\":");
            self.bytes_lossily(xattr.name.as_bytes());
            self.plain("value", format_args!("\"{}\"", STANDARD.encode(&xattr.value)));
            self.text.push('}');
        }
        if !xattrs.is_empty() {
            self.text.push(']');
        }
    }

    fn device(&mut self, kind: &Kind) {
        if let Kind::BlockDevice { device } | Kind::CharDevice { device } = kind {
            self.number("device", *device);
        }
    }

    fn content(&mut self, node: &Node) {
        self.text.push_str(",\"content\":");
        if node.metadata.kind != Kind::File {
            self.text.push_str("null");
            return;
        }
        self.text.push('[');
        for (index, id) in node.content.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            self.write(format_args!("{comma}\"{id}\""));
        }
        self.text.push(']');
    }

    fn plain(&mut self, name: &str, value: impl Display) {
        self.write(format_args!(",\"{name}\":{value}"));
    }

    fn number(&mut self, name: &str, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.plain(name, value);
        }
    }

    fn time(&mut self, name: &str, time: &DateTime<Utc>) {
        self.plain(name, format_args!("\"{}\"", time::print(time)));
    }

    fn text_field(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.write(format_args!(",\"{name}\":"));
            self.string(value);
        }
    }

    fn string(&mut self, text: &str) {
        self.bytes_lossily(text.as_bytes());
    }

    /// Go writes each byte that is no UTF-8 as `\ufffd`.
    fn bytes_lossily(&mut self, bytes: &[u8]) {
        self.text.push('"');
        for part in bytes.utf8_chunks() {
            part.valid().chars().for_each(|c| self.escaped(c));
            part.invalid().iter().for_each(|_| self.text.push_str("\\ufffd"));
        }
        self.text.push('"');
    }

    fn escaped(&mut self, c: char) {
        match c {
            '"' | '\\' => self.text.extend(['\\', c]),
            '\x08' => self.text.push_str("\\b"),
            '\x0c' => self.text.push_str("\\f"),
            '\n' => self.text.push_str("\\n"),
            '\r' => self.text.push_str("\\r"),
            '\t' => self.text.push_str("\\t"),
            '\0'..=' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if c != ' ' => {
                self.write(format_args!("\\u{:04x}", u32::from(c)));
            }
            _ => self.text.push(c),
        }
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "dir",
        Kind::Symlink { .. } => "symlink",
        Kind::BlockDevice { .. } => "dev",
        Kind::CharDevice { .. } => "chardev",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

fn go_mode(metadata: &Metadata) -> u32 {
    let kind = match metadata.kind {
        Kind::File => 0,
        Kind::Dir => DIR,
        Kind::Symlink { .. } => SYMLINK,
        Kind::BlockDevice { .. } => DEVICE,
        Kind::CharDevice { .. } => DEVICE | CHAR_DEVICE,
        Kind::Fifo => NAMED_PIPE,
        Kind::Socket => SOCKET,
    };
    let special = SPECIAL.iter().filter(|(_, unix)| metadata.mode & unix != 0);
    special.fold(kind | metadata.mode & 0o777, |mode, (go, _)| mode | go)
}

fn unix_mode(mode: u32) -> u32 {
    let special = SPECIAL.iter().filter(|(go, _)| mode & go != 0);
    special.fold(mode & 0o777, |mode, (_, unix)| mode | unix)
}

#[derive(Deserialize)]
struct RawTree<'a> {
    #[serde(borrow, default)]
    nodes: Option<Vec<RawNode<'a>>>,
}

#[derive(Deserialize)]
struct RawNode<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    mode: u32,
    #[serde(with = "time", default)]
    mtime: DateTime<Utc>,
    #[serde(with = "time", default)]
    atime: DateTime<Utc>,
    #[serde(with = "time", default)]
    ctime: DateTime<Utc>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default)]
    user: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    inode: u64,
    #[serde(default)]
    device_id: u64,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    links: u64,
    #[serde(default)]
    linktarget: String,
    #[serde(default)]
    linktarget_raw: Option<String>,
    #[serde(default)]
    extended_attributes: Option<Vec<RawXattr>>,
    #[serde(default)]
    device: u64,
    #[serde(default)]
    content: Option<Vec<BlobId>>,
    #[serde(default)]
    subtree: Option<BlobId>,
}

#[derive(Deserialize)]
struct RawXattr {
    name: String,
    #[serde(default)]
    value: Option<String>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Node>, TreeError> {
    let tree: RawTree<'_> = serde_json::from_slice(bytes).map_err(|error| TreeError::Json(error.to_string()))?;
    tree.nodes.unwrap_or_default().into_iter().map(node_of).collect()
}

fn node_of(raw: RawNode<'_>) -> Result<Node, TreeError> {
    let quoted = raw.name.clone();
    let fault = |reason: &str| TreeError::Node { name: OsString::from(quoted.as_ref()), reason: reason.to_owned() };
    let name = unquote(&raw.name).ok_or_else(|| fault("its name is not quoted well"))?;
    let kind = kind_of(&raw).ok_or_else(|| fault("its type or link target is not known"))?;
    let xattrs = raw.extended_attributes.unwrap_or_default().into_iter();
    let xattrs = xattrs.map(xattr_of).collect::<Option<_>>();
    Ok(Node {
        name: OsString::from_vec(name),
        metadata: Metadata {
            kind,
            mode: unix_mode(raw.mode),
            uid: raw.uid,
            gid: raw.gid,
            user: raw.user,
            group: raw.group,
            size: raw.size,
            mtime: raw.mtime,
            atime: raw.atime,
            ctime: raw.ctime,
            device: raw.device_id,
            inode: raw.inode,
            links: raw.links,
            xattrs: xattrs.ok_or_else(|| fault("an extended attribute is no base64"))?,
        },
        content: raw.content.unwrap_or_default(),
        subtree: raw.subtree,
    })
}

fn kind_of(raw: &RawNode<'_>) -> Option<Kind> {
    let kind = match raw.kind.as_ref() {
        "file" => Kind::File,
        "dir" => Kind::Dir,
        "symlink" => Kind::Symlink { target: link_target(raw)? },
        "dev" => Kind::BlockDevice { device: raw.device },
        "chardev" => Kind::CharDevice { device: raw.device },
        "fifo" => Kind::Fifo,
        "socket" => Kind::Socket,
        _ => return None,
    };
    Some(kind)
}

fn link_target(raw: &RawNode<'_>) -> Option<PathBuf> {
    match &raw.linktarget_raw {
        Some(base64) => Some(OsString::from_vec(STANDARD.decode(base64).ok()?).into()),
        None => Some(PathBuf::from(&raw.linktarget)),
    }
}

fn xattr_of(raw: RawXattr) -> Option<Xattr> {
    Some(Xattr { name: raw.name.into(), value: STANDARD.decode(raw.value.unwrap_or_default()).ok()? })
}
