CREATE TABLE audit (
	number BIGSERIAL NOT NULL,
	at FLOAT NOT NULL,
	owner VARCHAR(40) NOT NULL,
	what VARCHAR(40) NOT NULL,
	about VARCHAR(120) NOT NULL,
	PRIMARY KEY (number)
);
CREATE TABLE collections (
	id VARCHAR(40) NOT NULL,
	owner VARCHAR(40) NOT NULL,
	name VARCHAR(200) NOT NULL,
	created FLOAT NOT NULL,
	PRIMARY KEY (id),
	CONSTRAINT collections_name UNIQUE (owner, name)
);
CREATE TABLE jobs (
	id VARCHAR(40) NOT NULL,
	kind VARCHAR(20) NOT NULL,
	owner VARCHAR(40) NOT NULL,
	state VARCHAR(10) NOT NULL,
	place FLOAT NOT NULL,
	fields JSON NOT NULL,
	inputs JSON NOT NULL,
	parents JSON NOT NULL,
	created FLOAT NOT NULL,
	started FLOAT,
	finished FLOAT,
	attempts INTEGER NOT NULL,
	fence INTEGER NOT NULL,
	lease_until FLOAT,
	worker VARCHAR(80),
	done INTEGER NOT NULL,
	total INTEGER NOT NULL,
	stop VARCHAR(5) NOT NULL,
	problem_code VARCHAR(40),
	problem TEXT,
	notes JSON NOT NULL,
	result JSON,
	consent BOOLEAN NOT NULL,
	key VARCHAR(255),
	body VARCHAR(64),
	PRIMARY KEY (id),
	CONSTRAINT jobs_key UNIQUE (owner, key)
);
CREATE INDEX jobs_created ON jobs (created, id);
CREATE INDEX jobs_finished ON jobs (finished);
CREATE INDEX jobs_lease ON jobs (state, lease_until);
CREATE INDEX jobs_owner ON jobs (owner, created, id);
CREATE INDEX jobs_queue ON jobs (state, place);
CREATE INDEX jobs_state ON jobs (state, created, id);
CREATE INDEX jobs_turn ON jobs (owner, started);
CREATE TABLE keys (
	id VARCHAR(40) NOT NULL,
	name VARCHAR(200) NOT NULL,
	secret VARCHAR(64) NOT NULL,
	scopes JSON NOT NULL,
	created FLOAT NOT NULL,
	revoked FLOAT,
	PRIMARY KEY (id),
	UNIQUE (secret)
);
CREATE TABLE parents (
	child VARCHAR(40) NOT NULL,
	parent VARCHAR(40) NOT NULL,
	use VARCHAR(40) NOT NULL,
	PRIMARY KEY (child, parent, use)
);
CREATE INDEX parents_parent ON parents (parent);
CREATE TABLE sent (
	sha256 VARCHAR(64) NOT NULL,
	dhash VARCHAR(16) NOT NULL,
	picture VARCHAR(40),
	privacy VARCHAR(12) NOT NULL,
	at FLOAT NOT NULL,
	PRIMARY KEY (sha256)
);
CREATE INDEX sent_dhash ON sent (dhash);
CREATE TABLE pictures (
	number BIGSERIAL NOT NULL,
	id VARCHAR(40) NOT NULL,
	job VARCHAR(40),
	index INTEGER NOT NULL,
	owner VARCHAR(40) NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	thumbnail VARCHAR(64) NOT NULL,
	media_type VARCHAR(40) NOT NULL,
	width INTEGER NOT NULL,
	height INTEGER NOT NULL,
	bytes INTEGER NOT NULL,
	dhash VARCHAR(16) NOT NULL,
	prompt TEXT NOT NULL,
	negative_prompt TEXT NOT NULL,
	model VARCHAR(120) NOT NULL,
	family VARCHAR(40) NOT NULL,
	seed BIGINT,
	metadata JSON NOT NULL,
	source VARCHAR(10) NOT NULL,
	created FLOAT NOT NULL,
	favourite BOOLEAN NOT NULL,
	deleted FLOAT,
	PRIMARY KEY (number),
	CONSTRAINT pictures_once UNIQUE (job, index),
	UNIQUE (id),
	FOREIGN KEY(job) REFERENCES jobs (id)
);
CREATE INDEX pictures_created ON pictures (created, number);
CREATE INDEX pictures_deleted ON pictures (number) WHERE deleted IS NOT NULL;
CREATE INDEX pictures_favourite ON pictures (favourite, number) WHERE deleted IS NULL;
CREATE INDEX pictures_here ON pictures (number) WHERE deleted IS NULL;
CREATE INDEX pictures_model ON pictures (model, number) WHERE deleted IS NULL;
CREATE INDEX pictures_owner ON pictures (owner, number) WHERE deleted IS NULL;
CREATE INDEX pictures_sha256 ON pictures (sha256);
CREATE INDEX pictures_source ON pictures (source, number) WHERE deleted IS NULL;
CREATE INDEX pictures_thumbnail ON pictures (thumbnail);
CREATE TABLE sessions (
	secret VARCHAR(64) NOT NULL,
	key VARCHAR(40) NOT NULL,
	until FLOAT NOT NULL,
	PRIMARY KEY (secret),
	FOREIGN KEY(key) REFERENCES keys (id) ON DELETE CASCADE
);
CREATE TABLE collected (
	collection VARCHAR(40) NOT NULL,
	picture BIGINT NOT NULL,
	PRIMARY KEY (collection, picture),
	FOREIGN KEY(collection) REFERENCES collections (id) ON DELETE CASCADE,
	FOREIGN KEY(picture) REFERENCES pictures (number) ON DELETE CASCADE
);
CREATE INDEX collected_picture ON collected (picture);
CREATE TABLE words (
	word VARCHAR(64) COLLATE "C" NOT NULL,
	picture BIGINT NOT NULL,
	PRIMARY KEY (word, picture),
	FOREIGN KEY(picture) REFERENCES pictures (number) ON DELETE CASCADE
);
CREATE INDEX words_picture ON words (picture, word);
