use super::*;

fn abilities(collations: &[&str], engines: &[&str], types: &[&str]) -> Abilities {
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Abilities { collations: set(collations), engines: set(engines), types: set(types) }
}

/// As MySQL 9.7 says of itself, in short.
fn to_mysql() -> Dialect {
    let collations = [
        "binary",
        "ascii_general_ci",
        "latin1_swedish_ci",
        "utf8mb3_general_ci",
        "utf8mb4_general_ci",
        "utf8mb4_bin",
        "utf8mb4_0900_ai_ci",
        "utf8mb4_0900_as_cs",
        "utf8mb4_0900_bin",
    ];
    Dialect::new(Product::MariaDb, Product::MySql, abilities(&collations, &["innodb", "myisam"], &["vector"]))
}

/// As MariaDB 10.11 does.
fn to_mariadb() -> Dialect {
    let collations =
        ["latin1_swedish_ci", "utf8mb4_bin", "utf8mb4_nopad_bin", "utf8mb4_general_ci", "utf8mb4_uca1400_nopad_ai_ci"];
    let types = ["uuid", "inet4", "inet6"];
    Dialect::new(Product::MySql, Product::MariaDb, abilities(&collations, &["innodb", "aria"], &types))
}

fn held(dialect: &Dialect, create: &str) -> (String, Vec<String>) {
    match dialect.table(create) {
        Fit::Holds { create, notes, .. } => (create, notes.into_iter().collect()),
        Fit::Refused { why } => panic!("refused: {why}\n{create}"),
    }
}

fn refusal(dialect: &Dialect, create: &str) -> String {
    match dialect.table(create) {
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
    let same = Dialect::new(Product::MySql, Product::MySql, to_mysql().abilities);
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
        (to_mysql(), "utf8mb4_uca1400_german2_as_cs", Some("utf8mb4_0900_as_cs")),
        (to_mysql(), "utf8mb4_uca1400_as_ci", Some("utf8mb4_bin")),
        (to_mysql(), "utf8mb4_nopad_bin", Some("utf8mb4_0900_bin")),
        (to_mysql(), "utf8mb4_general_nopad_ci", Some("utf8mb4_0900_ai_ci")),
        (to_mysql(), "latin1_swedish_nopad_ci", Some("latin1_swedish_ci")),
        (to_mysql(), "utf8_general_ci", Some("utf8mb3_general_ci")),
        (to_mysql(), "binary", Some("binary")),
        (to_mysql(), "koi8r_bin", None),
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
    let same = Dialect::new(Product::MySql, Product::MySql, to_mysql().abilities);
    assert_eq!(same.schema(plain), (plain.to_owned(), BTreeSet::new()));
}

#[test]
fn an_objects_session_is_one_that_the_target_has() {
    use crate::mysql::manifest::ObjectKind::{Procedure, View};
    let said = |statement: &str| to_mysql().statement(Procedure, statement);
    assert_eq!(
        said("SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_AUTO_CREATE_USER,ANSI_QUOTES'"),
        "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ANSI_QUOTES'"
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
}
