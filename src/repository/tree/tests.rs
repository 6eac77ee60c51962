#![allow(clippy::unwrap_used)]

use std::os::unix::ffi::OsStringExt;

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::entry::{Kind, Xattr};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn metadata(kind: Kind) -> Metadata {
    Metadata {
        kind,
        mode: 0o644,
        uid: 0,
        gid: 100,
        user: "root".to_owned(),
        group: String::new(),
        size: 0,
        mtime: at("2026-01-02T03:04:05.000000006Z"),
        atime: at("2026-01-02T03:04:05.5Z"),
        ctime: at("2026-01-02T03:04:05Z"),
        device: 0,
        inode: 7,
        links: 0,
        xattrs: Vec::new(),
    }
}

fn node(name: &str, kind: Kind) -> Node {
    Node { name: name.into(), metadata: metadata(kind), content: Vec::new(), subtree: None }
}

fn printed(node: Node) -> String {
    let json = Tree { nodes: vec![node] }.to_json().unwrap();
    let text = String::from_utf8(json).unwrap();
    text.strip_prefix("{\"nodes\":[").unwrap().strip_suffix("]}\n").unwrap().to_owned()
}

fn again(tree: &Tree) -> Tree {
    Tree::from_json(&tree.to_json().unwrap()).unwrap()
}

#[test]
fn an_empty_file_has_an_empty_array_and_no_size() {
    let mut empty = node("a", Kind::File);
    empty.metadata.links = 1;
    empty.metadata.device = 99;
    assert_eq!(
        printed(empty),
        r#"{"name":"a","type":"file","mode":420,"mtime":"2026-01-02T03:04:05.000000006Z","atime":"2026-01-02T03:04:05.5Z","ctime":"2026-01-02T03:04:05Z","uid":0,"gid":100,"user":"root","inode":7,"links":1,"content":[]}"#
    );
}

#[test]
fn the_device_is_kept_only_where_an_inode_has_several_names() {
    let mut file = node("a", Kind::File);
    (file.metadata.links, file.metadata.device, file.metadata.size) = (2, 99, 5);
    assert!(printed(file).contains(r#""inode":7,"device_id":99,"size":5,"links":2,"content":[]"#));
}

#[test]
fn a_directory_has_gos_bit_and_null_for_content() {
    let mut dir = node("d", Kind::Dir);
    (dir.metadata.mode, dir.metadata.links) = (0o1777, 4);
    dir.subtree = Some(BlobId::of(b"tree"));
    let text = printed(dir);
    assert!(text.contains(&format!("\"mode\":{}", (1u32 << 31) | (1 << 20) | 0o777)), "{text}");
    let end = format!(r#""inode":7,"content":null,"subtree":"{}"}}"#, BlobId::of(b"tree"));
    assert!(text.ends_with(&end), "{text}");
}

#[test]
fn setuid_and_setgid_move_to_gos_bits() {
    let mut file = node("su", Kind::File);
    file.metadata.mode = 0o6755;
    assert!(printed(file).contains(&format!("\"mode\":{}", (1 << 23) | (1 << 22) | 0o755)));
}

#[test]
fn a_link_target_that_is_no_text_is_kept_raw() {
    let target = std::ffi::OsString::from_vec(b"caf\xe9\xff".to_vec());
    let text = printed(node("l", Kind::Symlink { target: target.into() }));
    assert!(text.contains(r#""linktarget":"caf\ufffd\ufffd","linktarget_raw":"Y2Fm6f8=","content":null"#), "{text}");
    let text = printed(node("l", Kind::Symlink { target: "a<b>&c".into() }));
    assert!(text.contains(r#""linktarget":"a\u003cb\u003e\u0026c","content":null"#), "{text}");
}

#[test]
fn names_are_quoted_and_then_escaped() {
    let text = printed(Node { name: OsString::from_vec(b"\"\n\xff&".to_vec()), ..node("", Kind::File) });
    assert!(text.starts_with(r#"{"name":"\\\"\\n\\xff\u0026","type""#), "{text}");
}

#[test]
fn extended_attributes_are_base64() {
    let mut file = node("x", Kind::File);
    file.metadata.xattrs = vec![
        Xattr { name: "user.a".into(), value: b"\0\xff".to_vec() },
        Xattr { name: "user.b".into(), value: Vec::new() },
    ];
    let expected =
        r#","extended_attributes":[{"name":"user.a","value":"AP8="},{"name":"user.b","value":""}],"content""#;
    assert!(printed(file).contains(expected));
}

#[test]
fn unsorted_doubled_and_dangerous_names_are_refused() {
    let tree = |names: &[&str]| Tree { nodes: names.iter().map(|name| node(name, Kind::File)).collect() };
    assert!(tree(&["a", "b"]).to_json().is_ok());
    assert!(tree(&["A", "a", "a b", "a.b", "상"]).to_json().is_ok());
    for names in [&["b", "a"][..], &["a", "a"], &[""], &["."], &[".."], &["a/b"], &["a\0b"]] {
        assert!(tree(names).to_json().is_err(), "{names:?}");
    }
    for name in ["..", "a/b", "", "a\\x00", "x\\"] {
        let json = format!("{{\"nodes\":[{{\"name\":{},\"type\":\"file\"}}]}}", serde_json::to_string(name).unwrap());
        assert!(Tree::from_json(json.as_bytes()).is_err(), "{json}");
    }
}

#[test]
fn a_tree_of_another_writer_is_read_leniently() {
    let json = r#"{"later":1,"nodes":[{"name":"b","type":"file","content":null,"generic_attributes":{"x":1}},{"name":"a","type":"dir","mtime":"2014-12-06T17:50:23.34513538+01:00"}]}"#;
    let tree = Tree::from_json(json.as_bytes()).unwrap();
    assert_eq!(tree.nodes.iter().map(|node| node.name.to_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(tree.nodes[0].metadata.mtime, at("2014-12-06T16:50:23.34513538Z"));
    assert!(tree.find("b".as_ref()).is_some() && tree.find("c".as_ref()).is_none());
    assert_eq!(Tree::from_json(b"{\"nodes\":null}").unwrap(), Tree::default());
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::File),
        Just(Kind::Dir),
        proptest::collection::vec(1u8.., 1..30)
            .prop_map(|bytes| Kind::Symlink { target: OsString::from_vec(bytes).into() }),
        any::<u64>().prop_map(|device| Kind::BlockDevice { device }),
        any::<u64>().prop_map(|device| Kind::CharDevice { device }),
        Just(Kind::Fifo),
        Just(Kind::Socket),
    ]
}

prop_compose! {
    fn any_node()(
        kind in any_kind(),
        name in proptest::collection::vec(any::<u8>(), 0..40),
        mode in 0u32..0o10000,
        numbers: (u32, u32, u64, u64, u64),
        links in 0u64..4,
        text: (String, String),
        seconds in -62_000_000_000i64..253_000_000_000,
        nanos in 0u32..1_000_000_000,
        blobs in proptest::collection::vec(any::<[u8; 32]>(), 0..4),
        xattrs in proptest::collection::vec(("[a-z.]{1,12}", proptest::collection::vec(any::<u8>(), 0..20)), 0..3),
    ) -> Node {
        let has_links = !matches!(kind, Kind::Dir | Kind::Fifo | Kind::Socket);
        let is_file = kind == Kind::File;
        let time = DateTime::from_timestamp(seconds, nanos).unwrap();
        let name = name.into_iter().filter(|byte| !matches!(byte, 0 | b'/')).collect();
        let blobs: Vec<_> = blobs.into_iter().map(BlobId::from_bytes).collect();
        Node {
            name: OsString::from_vec(name),
            subtree: blobs.first().copied().filter(|_| kind == Kind::Dir),
            content: if is_file { blobs } else { Vec::new() },
            metadata: Metadata {
                kind,
                mode,
                uid: numbers.0,
                gid: numbers.1,
                user: text.0,
                group: text.1,
                size: if is_file { numbers.2 } else { 0 },
                mtime: time,
                atime: time,
                ctime: time,
                device: if has_links && links > 1 { numbers.3 } else { 0 },
                inode: numbers.4,
                links: if has_links { links } else { 0 },
                xattrs: xattrs.into_iter().map(|(name, value)| Xattr { name: name.into(), value }).collect(),
            },
        }
    }
}

proptest! {
    #[test]
    fn a_tree_comes_back_as_it_was_printed(nodes in proptest::collection::vec(any_node(), 0..6)) {
        let mut nodes: Vec<_> = nodes.into_iter().filter(|node| check_name(node).is_ok()).collect();
        nodes.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        nodes.dedup_by(|a, b| a.name == b.name);
        let tree = Tree { nodes };
        prop_assert_eq!(again(&tree), tree);
    }

    #[test]
    fn hostile_json_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Tree::from_json(&bytes);
    }
}
