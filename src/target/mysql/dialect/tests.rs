use super::*;

fn abilities(collations: &[&str], engines: &[&str], types: &[&str]) -> Abilities {
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Abilities { collations: set(collations), engines: set(engines), types: set(types), zones: None }
}

const MYSQL: Edition = Edition { product: Product::MySql, series: (9, 7) };
const MARIADB: Edition = Edition { product: Product::MariaDb, series: (11, 8) };

/// As MySQL 9.7 says of itself, in short.
fn to_mysql() -> Dialect {
    let collations = [
        "binary",
        "ascii_general_ci",
        "latin1_swedish_ci",
        "utf8mb3_general_ci",
        "utf8mb3_bin",
        "utf8mb3_swedish_ci",
        "utf8mb3_unicode_520_ci",
        "utf8mb4_general_ci",
        "utf8mb4_bin",
        "utf8mb4_0900_ai_ci",
        "utf8mb4_0900_as_cs",
        "utf8mb4_0900_bin",
        "utf8mb4_sv_0900_ai_ci",
        "utf8mb4_sv_0900_as_cs",
    ];
    Dialect::new(MARIADB, MYSQL, abilities(&collations, &["innodb", "myisam"], &["vector"]))
}

/// As MariaDB 10.11 does.
fn to_mariadb() -> Dialect {
    let collations = [
        "latin1_swedish_ci",
        "utf8mb4_bin",
        "utf8mb4_nopad_bin",
        "utf8mb4_general_ci",
        "utf8mb4_uca1400_nopad_ai_ci",
        "utf8mb4_uca1400_spanish_nopad_ai_ci",
    ];
    let types = ["uuid", "inet4", "inet6"];
    Dialect::new(MYSQL, MARIADB, abilities(&collations, &["innodb", "aria"], &types))
}

fn held(dialect: &Dialect, create: &str) -> (String, Vec<String>) {
    match dialect.table(create, &mut BTreeSet::new()) {
        Fit::Holds { create, notes, .. } => (create, notes.into_iter().collect()),
        Fit::Refused { why } => panic!("refused: {why}\n{create}"),
    }
}

fn refusal(dialect: &Dialect, create: &str) -> String {
    match dialect.table(create, &mut BTreeSet::new()) {
        Fit::Refused { why } => why,
        Fit::Holds { create, .. } => panic!("held: {create}"),
    }
}

#[test]
fn what_mariadb_prints_is_said_in_mysqls_words() {
    let create = "CREATE TABLE `we(ird``t` (
  `id` uuid NOT NULL DEFAULT uuid(),
  `v4` inet4 DEFAULT NULL,
  `n` bigint(20) NOT NULL DEFAULT nextval(`shop`.`numbers`),
  `j` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(`j`)),
  `t` text /*M!100301 COMPRESSED*/ COLLATE utf8mb4_uca1400_ai_ci DEFAULT 'it''s; (a, b)',
  `at` timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  `day` date DEFAULT curdate() COMMENT 'DEFAULT curdate() COLLATE x',
  `secret` int(11) INVISIBLE DEFAULT 5,
  PRIMARY KEY (`id`),
  KEY `by_n` (`n`) IGNORED,
  CONSTRAINT `CONSTRAINT_1` CHECK (`n` > 0),
  CONSTRAINT `named` CHECK (`n` < 9)
) ENGINE=Aria AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci PAGE_CHECKSUM=1 ROW_FORMAT=PAGE TRANSACTIONAL=1 COMMENT='ENGINE=Aria'";
    let (create, notes) = held(&to_mysql(), create);
    insta::assert_snapshot!(format!("{create}\n\n{}", notes.join("\n")), @"
    CREATE TABLE `we(ird``t` (
      `id` char(36) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL DEFAULT (uuid()),
      `v4` varchar(15) CHARACTER SET ascii COLLATE ascii_general_ci DEFAULT NULL,
      `n` bigint(20) NOT NULL,
      `j` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(`j`)),
      `t` text COLLATE utf8mb4_0900_ai_ci DEFAULT ('it''s; (a, b)'),
      `at` timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
      `day` date DEFAULT (curdate()) COMMENT 'DEFAULT curdate() COLLATE x',
      `secret` int(11) INVISIBLE DEFAULT 5,
      PRIMARY KEY (`id`),
      KEY `by_n` (`n`) INVISIBLE,
      CHECK (`n` > 0),
      CONSTRAINT `named` CHECK (`n` < 9)
    ) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci COMMENT='ENGINE=Aria'

    collation utf8mb4_uca1400_ai_ci comes as utf8mb4_0900_ai_ci
    column `n` has no default any more: MySQL has no sequences
    columns that are COMPRESSED come uncompressed: MySQL has none such
    it comes as InnoDB: the target has no engine Aria
    option PAGE_CHECKSUM is left out: the other product has none such
    option TRANSACTIONAL is left out: the other product has none such
    type inet4 comes as varchar(15): the target has none such
    type uuid comes as char(36): the target has none such
    ");
}

#[test]
fn what_mysql_prints_is_said_in_mariadbs_words() {
    let create = "CREATE TABLE `t` (
  `my_row_id` bigint unsigned NOT NULL AUTO_INCREMENT /*!80023 INVISIBLE */,
  `j` json DEFAULT (json_object()),
  `twice` int GENERATED ALWAYS AS ((`a` * 2)) VIRTUAL NOT NULL,
  `p` point NOT NULL /*!80003 SRID 4326 */,
  `g` geomcollection DEFAULT NULL,
  `v` vector(3) DEFAULT NULL,
  `c` varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_ja_0900_as_cs_ks DEFAULT 'COLLATE utf8mb4_0900_ai_ci',
  PRIMARY KEY (`my_row_id`),
  KEY `hidden` (`c`) /*!80000 INVISIBLE */,
  KEY `tags` ((cast(json_extract(`j`,_utf8mb4'$.tags') as unsigned array))),
  SPATIAL KEY `p` (`p`),
  CONSTRAINT `kept` CHECK ((`a` > 0)),
  CONSTRAINT `positive` CHECK ((`a` > 0)) /*!80016 NOT ENFORCED */
) /*!50100 TABLESPACE `one` */ ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci /*!80016 ENCRYPTION='Y' */
/*!50100 PARTITION BY RANGE (`a`)
(PARTITION p0 VALUES LESS THAN (2020) ENGINE = InnoDB) */";
    let (create, notes) = held(&to_mariadb(), create);
    insta::assert_snapshot!(format!("{create}\n\n{}", notes.join("\n")), @"
    CREATE TABLE `t` (
      `my_row_id` bigint unsigned NOT NULL AUTO_INCREMENT INVISIBLE,
      `j` json DEFAULT (json_object()),
      `twice` int GENERATED ALWAYS AS ((`a` * 2)) VIRTUAL,
      `p` point NOT NULL,
      `g` geometrycollection DEFAULT NULL,
      `v` varbinary(12) DEFAULT NULL,
      `c` varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin DEFAULT 'COLLATE utf8mb4_0900_ai_ci',
      PRIMARY KEY (`my_row_id`),
      KEY `hidden` (`c`) IGNORED,
      SPATIAL KEY `p` (`p`),
      CONSTRAINT `kept` CHECK ((`a` > 0))
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_uca1400_nopad_ai_ci
    PARTITION BY RANGE (`a`) (PARTITION p0 VALUES LESS THAN (2020) ENGINE = InnoDB)

    a check that is NOT ENFORCED is left out: MariaDB would enforce it
    collation utf8mb4_0900_ai_ci comes as utf8mb4_uca1400_nopad_ai_ci
    collation utf8mb4_ja_0900_as_cs_ks comes as utf8mb4_nopad_bin
    columns with an SRID take values of any: MariaDB has no such rule
    generated columns are computed by the target and not compared: rounding and functions may differ
    generated columns that are NOT NULL may be NULL: MariaDB has no such rule for them
    option ENCRYPTION is left out: the other product has none such
    option TABLESPACE is left out: the other product has none such
    the index `tags` on an expression is left out: MariaDB has none such
    type json comes as MariaDB's: a text that is checked
    type vector comes as varbinary(12): the target has none such
    ");
}

#[test]
fn a_table_whose_rows_cannot_come_whole_is_refused_with_the_reason() {
    let table = |column: &str, options: &str| format!("CREATE TABLE `t` (\n  {column}\n) ENGINE=InnoDB{options}");
    let cases = [
        (table("`a` int(11)", " WITH SYSTEM VERSIONING"), "MySQL keeps no history of rows (SYSTEM VERSIONING)"),
        (
            table("`s` timestamp(6) GENERATED ALWAYS AS ROW START", ""),
            "MySQL keeps no history of rows (SYSTEM VERSIONING)",
        ),
        (table("`a` date,\n  PERIOD FOR `p` (`a`, `b`)", ""), "MySQL has no periods (PERIOD FOR)"),
        (table("`a` char(1) COLLATE koi9_bin", ""), "the target has no collation like koi9_bin"),
        (table("`a` int(11)", " DEFAULT CHARSET=koi9"), "the target lacks the character set koi9"),
        (table("`a` int(11)", "").replace("InnoDB", "CONNECT"), "the target lacks the engine CONNECT"),
    ];
    for (create, why) in cases {
        assert_eq!(refusal(&to_mysql(), &create), why);
    }
}

#[test]
fn a_definition_that_fits_keeps_the_servers_own_words() {
    let same = Dialect::new(MYSQL, MYSQL, to_mysql().abilities);
    let create = "CREATE TABLE `t` (\n  `a` int  DEFAULT '5' /*!80023 INVISIBLE */,\n  KEY `k` ((`a` + 1))\n) ENGINE=InnoDB\n/*!50100 PARTITION BY HASH (`a`) */";
    assert_eq!(held(&same, create), (create.to_owned(), Vec::new()));
    let odd = "CREATE TABLE `t` AS SELECT 1";
    assert_eq!(held(&to_mysql(), odd), (odd.to_owned(), Vec::new()));
    // An older server of the same product lacks a collation and an engine, and nothing else is touched.
    let newer = create.replace("ENGINE=InnoDB", "ENGINE=ROCKSDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_uca1400_as_cs");
    let (older, notes) = held(&same, &newer);
    assert!(older.contains("/*!80023 INVISIBLE */") && older.contains("COLLATE=utf8mb4_0900_as_cs"), "{older}");
    let said = [
        "collation utf8mb4_uca1400_as_cs comes as utf8mb4_0900_as_cs",
        "it comes as InnoDB: the target has no engine ROCKSDB",
    ];
    assert_eq!(notes, said);
}

#[test]
fn a_collation_that_stands_in_tells_apart_what_the_other_did() {
    let nearest = |dialect: &Dialect, name: &str| collation::nearest(name, &dialect.abilities.collations);
    let cases = [
        (to_mysql(), "utf8mb4_uca1400_ai_ci", Some("utf8mb4_0900_ai_ci")),
        (to_mysql(), "utf8mb4_uca1400_as_ci", Some("utf8mb4_0900_as_cs")),
        // A language's letters are another's accents.
        (to_mysql(), "utf8mb4_uca1400_swedish_ai_ci", Some("utf8mb4_sv_0900_ai_ci")),
        (to_mysql(), "utf8mb4_uca1400_swedish_nopad_as_ci", Some("utf8mb4_sv_0900_as_cs")),
        (to_mysql(), "utf8mb4_uca1400_german2_as_cs", Some("utf8mb4_bin")),
        (to_mysql(), "utf8mb4_uca1400_persian_nopad_ai_ci", Some("utf8mb4_0900_bin")),
        (to_mysql(), "utf8mb3_uca1400_swedish_ai_ci", Some("utf8mb3_swedish_ci")),
        (to_mysql(), "utf8mb3_uca1400_nopad_ai_ci", Some("utf8mb3_unicode_520_ci")),
        (to_mysql(), "utf8mb3_uca1400_as_cs", Some("utf8mb3_bin")),
        (to_mysql(), "utf8mb4_nopad_bin", Some("utf8mb4_0900_bin")),
        (to_mysql(), "utf8mb4_general_nopad_ci", Some("utf8mb4_0900_bin")),
        (to_mysql(), "latin1_swedish_nopad_ci", Some("latin1_swedish_ci")),
        (to_mysql(), "utf8_general_ci", Some("utf8mb3_general_ci")),
        (to_mysql(), "binary", Some("binary")),
        (to_mysql(), "koi8r_bin", None),
        (to_mariadb(), "utf8mb4_ru_0900_ai_ci", Some("utf8mb4_uca1400_nopad_ai_ci")),
        (to_mariadb(), "utf8mb4_gl_0900_ai_ci", Some("utf8mb4_uca1400_spanish_nopad_ai_ci")),
        (to_mariadb(), "utf8mb4_sv_0900_ai_ci", Some("utf8mb4_nopad_bin")),
        (to_mariadb(), "utf8mb4_0900_ai_ci", Some("utf8mb4_uca1400_nopad_ai_ci")),
        (to_mariadb(), "utf8mb4_ja_0900_as_cs_ks", Some("utf8mb4_nopad_bin")),
        (to_mariadb(), "utf8mb4_0900_bin", Some("utf8mb4_nopad_bin")),
    ];
    for (dialect, name, expected) in cases {
        assert_eq!(nearest(&dialect, name).as_deref(), expected, "{name}");
    }
}

#[test]
fn a_schema_keeps_its_name_and_takes_a_collation_that_is_there() {
    let create = "CREATE DATABASE `ENCRYPTION` /*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci */ /*!80016 DEFAULT ENCRYPTION='N' */";
    let (schema, notes) = to_mariadb().schema(create);
    assert_eq!(
        schema,
        "CREATE DATABASE `ENCRYPTION` DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_nopad_ai_ci"
    );
    assert_eq!(notes.len(), 1);
    let plain = "CREATE DATABASE `a` /*!40100 DEFAULT CHARACTER SET latin1 COLLATE latin1_swedish_ci */";
    let same = Dialect::new(MYSQL, MYSQL, to_mysql().abilities);
    assert_eq!(same.schema(plain), (plain.to_owned(), BTreeSet::new()));
}

#[test]
fn an_objects_session_is_one_that_the_target_has() {
    use crate::mysql::manifest::ObjectKind::{Procedure, View};
    let said = |statement: &str| to_mysql().statement(Procedure, statement);
    assert_eq!(
        said("SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_AUTO_CREATE_USER,ANSI_QUOTES'"),
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ANSI_QUOTES,TIME_TRUNCATE_FRACTIONAL'"
    );
    assert_eq!(
        said("SET collation_connection = utf8mb4_uca1400_ai_ci"),
        "SET collation_connection = utf8mb4_0900_ai_ci"
    );
    let body = "CREATE PROCEDURE `p` () SELECT 'a'  COLLATE utf8mb4_uca1400_ai_ci";
    assert_eq!(said(body), body);
    assert_eq!(
        to_mysql().statement(View, "select 'a' collate utf8mb4_uca1400_ai_ci"),
        "select 'a' collate utf8mb4_0900_ai_ci"
    );
}

#[test]
fn a_table_under_another_name_draws_from_no_sequence() {
    let create = "CREATE TABLE `t` (
  `id` bigint(20) NOT NULL DEFAULT nextval(`shop`.`numbers`),
  `text` varchar(40) DEFAULT 'DEFAULT nextval(`x`)',
  PRIMARY KEY (`id`)
) ENGINE=InnoDB";
    let apart = create.replacen(" DEFAULT nextval(`shop`.`numbers`)", "", 1);
    assert_eq!(without_sequences(create), apart);
    assert_eq!(without_sequences(&apart), apart);
    for default in ["concat('O-',nextval(`shop`.`numbers`))", "(nextval(`shop`.`numbers`) + 1)", "(1 + lastval(`n`))"] {
        let wrapped = create.replacen("nextval(`shop`.`numbers`)", default, 1);
        assert_eq!(without_sequences(&wrapped), apart, "{default}");
    }
}

#[test]
fn spaces_that_count_no_more_are_told() {
    let create = "CREATE TABLE `t` (\n  `a` char(9) COLLATE latin1_swedish_nopad_ci\n) ENGINE=InnoDB";
    let said = "collation latin1_swedish_nopad_ci comes as latin1_swedish_ci, for which spaces at the end do not count";
    assert_eq!(held(&to_mysql(), create).1, [said]);
}

#[test]
fn a_collation_that_went_without_saying_is_written_out() {
    let create = "CREATE TABLE `t` (
  `a` varchar(9) CHARACTER SET utf8mb4 DEFAULT NULL,
  `b` varchar(9) GENERATED ALWAYS AS (cast(`a` as char charset utf8mb4)) VIRTUAL,
  CONSTRAINT `c` CHECK ((charset(`a`) = 'utf8mb4'))
) ENGINE=InnoDB DEFAULT CHARSET=latin1";
    let (newer, notes) = held(&to_mariadb(), create);
    assert!(newer.contains("CHARACTER SET utf8mb4 COLLATE utf8mb4_uca1400_nopad_ai_ci DEFAULT NULL"), "{newer}");
    assert!(newer.contains("char charset utf8mb4)) VIRTUAL") && newer.ends_with("DEFAULT CHARSET=latin1"), "{newer}");
    assert!(notes.iter().any(|note| note.starts_with("collation utf8mb4_0900_ai_ci comes as")), "{notes:?}");
    let of_old_mysql = Dialect::new(Edition { series: (5, 7), ..MYSQL }, MYSQL, to_mysql().abilities);
    let create = "CREATE TABLE `t` (\n  `a` char(9)\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4";
    let explicit = (format!("{create} COLLATE utf8mb4_general_ci"), Vec::new());
    assert_eq!(held(&of_old_mysql, create), explicit);
    assert_eq!(held(&to_mysql(), create), explicit);
    let schema = "CREATE DATABASE `s` /*!40100 DEFAULT CHARACTER SET utf8mb4 */";
    assert_eq!(
        of_old_mysql.schema(schema).0,
        "CREATE DATABASE `s` DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    );
}

#[test]
fn an_index_that_the_target_would_refuse_is_left_out_and_the_rows_come() {
    let create = "CREATE TABLE `t` (
  `a` text NOT NULL,
  `b` varchar(2000) DEFAULT NULL,
  `n` int(11) DEFAULT NULL,
  UNIQUE KEY `whole` (`n`,`a`) USING HASH,
  UNIQUE KEY `long` (`b`) USING HASH COMMENT 'x',
  UNIQUE KEY `short` (`a`(20)),
  UNIQUE KEY `number` (`n`) USING HASH
) ENGINE=InnoDB";
    let (create, notes) = held(&to_mysql(), create);
    assert!(!create.contains("`whole`") && !create.contains("`long`"), "{create}");
    assert!(create.contains("KEY `short` (`a`(20))") && create.contains("KEY `number` (`n`) USING HASH"), "{create}");
    let said = ["long", "whole"]
        .map(|key| format!("the unique key `{key}` is left out: MySQL has none on texts of such length"));
    assert_eq!(notes, said);
    let create = "CREATE TABLE `t` (\n  `a` text,\n  FULLTEXT KEY `words` (`a`) /*!50100 WITH PARSER `ngram` */ \n) ENGINE=InnoDB";
    let (create, notes) = held(&to_mariadb(), create);
    assert!(create.contains("FULLTEXT KEY `words` (`a`)\n"), "{create}");
    assert_eq!(notes, ["the full-text index `words` finds words by the target's own parser, not by `ngram`"]);
}

#[test]
fn two_tables_of_a_schema_share_no_name_of_a_check() {
    let create = "CREATE TABLE `t` (\n  `a` int(11),\n  CONSTRAINT `Positive` CHECK (`a` > 0)\n) ENGINE=InnoDB";
    let mut taken = BTreeSet::new();
    let dialect = to_mysql();
    let mut made = || match dialect.table(create, &mut taken) {
        Fit::Holds { create, notes, .. } => (create, notes.len()),
        Fit::Refused { why } => panic!("{why}"),
    };
    assert_eq!(made(), (create.to_owned(), 0));
    assert_eq!(made(), (create.replace("CONSTRAINT `Positive` ", ""), 1));
}

#[test]
fn numbers_that_count_up_within_a_group_want_an_engine_that_does_so() {
    let create = "CREATE TABLE `t` (\n  `g` int(11) NOT NULL,\n  `n` int(11) NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`g`,`n`)\n) ENGINE=Aria";
    assert_eq!(refusal(&to_mysql(), create), "no key begins with `n`, whose AUTO_INCREMENT InnoDB would refuse");
    held(&to_mysql(), &create.replace("(`g`,`n`)", "(`g`,`n`),\n  KEY `n` (`n`)"));
    held(&to_mysql(), &create.replace("Aria", "MyISAM"));
}

#[test]
fn a_default_of_a_large_column_is_an_expression_in_mysql() {
    let cases = [
        ("text DEFAULT 5 COMMENT 'x'", "text DEFAULT (5) COMMENT 'x'"),
        ("blob DEFAULT -5", "blob DEFAULT (-5)"),
        ("text DEFAULT _latin1'x'", "text DEFAULT (_latin1'x')"),
        ("text DEFAULT current_timestamp()", "text DEFAULT (current_timestamp())"),
        ("text DEFAULT NULL", "text DEFAULT NULL"),
        ("int(11) DEFAULT 5", "int(11) DEFAULT 5"),
    ];
    for (column, wanted) in cases {
        let (create, _) = held(&to_mysql(), &format!("CREATE TABLE `t` (\n  `a` {column}\n) ENGINE=InnoDB"));
        assert_eq!(create, format!("CREATE TABLE `t` (\n  `a` {wanted}\n) ENGINE=InnoDB"));
    }
}

#[test]
fn fractions_of_a_second_become_what_they_became() {
    let old = Edition { series: (5, 7), ..MYSQL };
    let cases = [
        (MARIADB, MYSQL, "ANSI_QUOTES,ORACLE", "ANSI_QUOTES,TIME_TRUNCATE_FRACTIONAL"),
        (MARIADB, MYSQL, "TIME_ROUND_FRACTIONAL", ""),
        (MARIADB, old, "", ""),
        (MYSQL, MARIADB, "", "TIME_ROUND_FRACTIONAL"),
        (MYSQL, MARIADB, "TIME_TRUNCATE_FRACTIONAL", ""),
        (MYSQL, MYSQL, "TIME_TRUNCATE_FRACTIONAL", "TIME_TRUNCATE_FRACTIONAL"),
        (MARIADB, MARIADB, "ORACLE", "ORACLE"),
    ];
    for (from, to, modes, wanted) in cases {
        assert_eq!(carried(modes, from, to), wanted, "{from:?} {to:?} {modes}");
    }
    let lost = "SET SESSION sql_mode = 'ANSI_QUOTES,SIMULTANEOUS_ASSIGNMENT'";
    assert_eq!(to_mysql().lost_modes(lost), ["SIMULTANEOUS_ASSIGNMENT"]);
    assert!(to_mariadb().lost_modes(lost).is_empty());
}
