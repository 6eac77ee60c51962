-- The mall's tables, for MariaDB and MySQL alike. Tenants share them: every key begins with shop_id.

CREATE TABLE mall_meta (
  name VARCHAR(40) NOT NULL PRIMARY KEY,
  value LONGTEXT NOT NULL
) COMMENT = '생성기의 기록: 크기와 회차';

CREATE TABLE shops (
  shop_id INT UNSIGNED NOT NULL PRIMARY KEY,
  name VARCHAR(80) NOT NULL COMMENT '상호',
  domain VARCHAR(120) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  plan ENUM('basic','pro','enterprise') NOT NULL DEFAULT 'basic',
  fee_rate DECIMAL(6,4) NOT NULL,
  settings JSON NOT NULL,
  logo MEDIUMBLOB,
  opened_on DATE NOT NULL,
  created_at TIMESTAMP NULL DEFAULT NULL,
  UNIQUE KEY domain (domain)
) CHARACTER SET utf8mb4;

CREATE TABLE customers (
  shop_id INT UNSIGNED NOT NULL,
  id BIGINT UNSIGNED NOT NULL,
  email VARCHAR(120) NOT NULL,
  name VARCHAR(60) NOT NULL,
  phone CHAR(13) CHARACTER SET ascii NOT NULL,
  birthday DATE,
  address VARCHAR(200) NOT NULL,
  legacy_name VARCHAR(40) CHARACTER SET euckr COMMENT '이전 시스템의 문자 집합',
  grade TINYINT NOT NULL DEFAULT 0,
  points BIGINT NOT NULL DEFAULT 0,
  consents SET('sms','email','push') NOT NULL DEFAULT '',
  active BIT(1) NOT NULL DEFAULT b'1',
  profile JSON,
  joined_at DATETIME(3) NOT NULL,
  PRIMARY KEY (shop_id, id),
  UNIQUE KEY email (shop_id, email),
  KEY joined (shop_id, joined_at),
  CONSTRAINT customers_shop FOREIGN KEY (shop_id) REFERENCES shops (shop_id),
  CONSTRAINT customers_grade CHECK (grade BETWEEN 0 AND 9)
) CHARACTER SET utf8mb4;

CREATE TABLE products (
  shop_id INT UNSIGNED NOT NULL,
  id BIGINT UNSIGNED NOT NULL,
  sku CHAR(12) CHARACTER SET ascii NOT NULL,
  name VARCHAR(160) NOT NULL,
  description TEXT,
  price DECIMAL(12,2) NOT NULL,
  cost DECIMAL(12,2) NOT NULL,
  margin DECIMAL(12,2) AS (price - cost) STORED,
  stock INT NOT NULL,
  weight_kg DOUBLE,
  rating FLOAT,
  attributes JSON,
  thumbnail VARBINARY(255),
  state ENUM('draft','on_sale','sold_out','hidden') NOT NULL DEFAULT 'on_sale',
  updated_at TIMESTAMP(6) NULL DEFAULT NULL,
  PRIMARY KEY (shop_id, id),
  UNIQUE KEY sku (shop_id, sku),
  KEY sale (shop_id, state, price),
  FULLTEXT KEY words (name),
  CONSTRAINT products_shop FOREIGN KEY (shop_id) REFERENCES shops (shop_id)
) CHARACTER SET utf8mb4;

CREATE TABLE product_images (
  shop_id INT UNSIGNED NOT NULL,
  id BIGINT UNSIGNED NOT NULL,
  product_id BIGINT UNSIGNED NOT NULL,
  path VARCHAR(120) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  bytes INT UNSIGNED NOT NULL,
  sha256 BINARY(32) NOT NULL,
  alt VARCHAR(200) NOT NULL DEFAULT '',
  uploaded_at DATETIME NOT NULL,
  PRIMARY KEY (shop_id, id),
  UNIQUE KEY path (path),
  KEY product (shop_id, product_id),
  CONSTRAINT images_product FOREIGN KEY (shop_id, product_id) REFERENCES products (shop_id, id) ON DELETE CASCADE
) CHARACTER SET utf8mb4;

CREATE TABLE orders (
  shop_id INT UNSIGNED NOT NULL,
  id BIGINT UNSIGNED NOT NULL,
  number CHAR(20) CHARACTER SET ascii NOT NULL,
  customer_id BIGINT UNSIGNED NOT NULL,
  state ENUM('pending','paid','shipped','delivered','cancelled','returned') NOT NULL,
  total DECIMAL(14,2) NOT NULL,
  shipping JSON NOT NULL,
  note TEXT,
  promised_in TIME,
  ordered_at DATETIME NOT NULL,
  ordered_on DATE AS (CAST(ordered_at AS DATE)) VIRTUAL,
  updated_at DATETIME(6) NOT NULL,
  PRIMARY KEY (shop_id, id),
  UNIQUE KEY number (shop_id, number),
  KEY customer (shop_id, customer_id),
  KEY day (shop_id, ordered_at),
  KEY state (shop_id, state),
  CONSTRAINT orders_customer FOREIGN KEY (shop_id, customer_id) REFERENCES customers (shop_id, id)
) CHARACTER SET utf8mb4;

CREATE TABLE order_items (
  shop_id INT UNSIGNED NOT NULL,
  id BIGINT UNSIGNED NOT NULL,
  order_id BIGINT UNSIGNED NOT NULL,
  product_id BIGINT UNSIGNED NOT NULL,
  quantity SMALLINT UNSIGNED NOT NULL,
  price DECIMAL(12,2) NOT NULL,
  options JSON,
  PRIMARY KEY (shop_id, id),
  KEY order_id (shop_id, order_id),
  KEY product_id (shop_id, product_id),
  CONSTRAINT items_order FOREIGN KEY (shop_id, order_id) REFERENCES orders (shop_id, id) ON DELETE CASCADE,
  CONSTRAINT items_product FOREIGN KEY (shop_id, product_id) REFERENCES products (shop_id, id)
) CHARACTER SET utf8mb4;

CREATE TABLE payments (
  shop_id INT UNSIGNED NOT NULL,
  id BIGINT UNSIGNED NOT NULL,
  order_id BIGINT UNSIGNED NOT NULL,
  method ENUM('card','transfer','kakao','naver','points') NOT NULL,
  amount DECIMAL(14,2) NOT NULL,
  fee DOUBLE NOT NULL,
  receipt BLOB,
  gateway JSON,
  fiscal_year YEAR NOT NULL,
  approved_at DATETIME(6) NOT NULL,
  PRIMARY KEY (shop_id, id),
  UNIQUE KEY order_id (shop_id, order_id),
  KEY approved (shop_id, approved_at),
  CONSTRAINT payments_order FOREIGN KEY (shop_id, order_id) REFERENCES orders (shop_id, id) ON DELETE CASCADE
) CHARACTER SET utf8mb4;

-- No key of any kind, and rows that are equal in every column.
CREATE TABLE page_views (
  shop_id INT UNSIGNED NOT NULL,
  path VARCHAR(120) NOT NULL,
  visitor BINARY(8),
  milliseconds FLOAT,
  seen_at DATETIME NOT NULL
) CHARACTER SET utf8mb4;

CREATE TABLE audit_log (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  shop_id INT UNSIGNED NOT NULL,
  order_id BIGINT UNSIGNED NOT NULL,
  old_state VARCHAR(12) NOT NULL,
  new_state VARCHAR(12) NOT NULL,
  changed_at DATETIME(6) NOT NULL,
  KEY order_id (shop_id, order_id)
) CHARACTER SET utf8mb4;

CREATE TABLE daily_totals (
  shop_id INT UNSIGNED NOT NULL,
  day DATE NOT NULL,
  orders INT NOT NULL,
  revenue DECIMAL(18,2) NOT NULL,
  PRIMARY KEY (shop_id, day)
) CHARACTER SET utf8mb4;

CREATE VIEW order_totals AS
  SELECT o.shop_id, o.id AS order_id, o.customer_id, c.name AS customer, o.total, SUM(i.quantity) AS pieces
  FROM orders o
  JOIN customers c ON c.shop_id = o.shop_id AND c.id = o.customer_id
  JOIN order_items i ON i.shop_id = o.shop_id AND i.order_id = o.id
  GROUP BY o.shop_id, o.id, o.customer_id, c.name, o.total;

CREATE SQL SECURITY INVOKER VIEW best_customers AS
  SELECT shop_id, customer_id, customer, COUNT(*) AS orders, SUM(total) AS spent
  FROM order_totals
  GROUP BY shop_id, customer_id, customer
  HAVING SUM(total) > 1000000;

CREATE FUNCTION shop_revenue(shop INT UNSIGNED, first_day DATE) RETURNS DECIMAL(18,2)
  READS SQL DATA
  COMMENT '매출'
  RETURN (SELECT COALESCE(SUM(total), 0) FROM orders WHERE shop_id = shop AND ordered_at >= first_day);

CREATE PROCEDURE refresh_daily_totals(IN shop INT UNSIGNED, IN of_day DATE)
  MODIFIES SQL DATA
BEGIN
  DELETE FROM daily_totals WHERE shop_id = shop AND day = of_day;
  INSERT INTO daily_totals
    SELECT shop, of_day, COUNT(*), COALESCE(SUM(total), 0) FROM orders
    WHERE shop_id = shop AND ordered_at >= of_day AND ordered_at < of_day + INTERVAL 1 DAY;
END;

CREATE TRIGGER orders_audit AFTER UPDATE ON orders FOR EACH ROW
BEGIN
  IF NEW.state <> OLD.state THEN
    INSERT INTO audit_log (shop_id, order_id, old_state, new_state, changed_at)
    VALUES (NEW.shop_id, NEW.id, OLD.state, NEW.state, NEW.updated_at);
  END IF;
END;

CREATE EVENT nightly_totals ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 03:00:00' ON COMPLETION PRESERVE
  COMMENT '일별 집계'
  DO CALL refresh_daily_totals(1, CURRENT_DATE);
