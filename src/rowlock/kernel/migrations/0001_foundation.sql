-- Tables are singular, except `users` and `orders`: their singulars are reserved words of SQL.
-- The hot tables carry event_id in every key, so that they can be spread over machines by event one day.

CREATE TABLE users (
    id uuid PRIMARY KEY,
    name text NOT NULL CONSTRAINT name_is_short CHECK (char_length(name) BETWEEN 1 AND 200),
    email text NOT NULL CONSTRAINT email_is_short CHECK (char_length(email) BETWEEN 3 AND 254),
    person_key text NOT NULL CONSTRAINT one_user_per_email UNIQUE,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE organization (
    id uuid PRIMARY KEY,
    name text NOT NULL CONSTRAINT name_is_short CHECK (char_length(name) BETWEEN 1 AND 200),
    personal_user_id uuid CONSTRAINT one_personal_organization UNIQUE REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE member (
    organization_id uuid NOT NULL REFERENCES organization ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role text NOT NULL CONSTRAINT known_role CHECK (role IN ('owner', 'manager', 'finance', 'support', 'door')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, user_id)
);
CREATE INDEX member_by_user ON member (user_id);

CREATE TABLE access_token (
    token_hash bytea PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX access_token_by_user ON access_token (user_id);
CREATE INDEX access_token_by_expiry ON access_token (expires_at);

CREATE TABLE api_key (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organization ON DELETE CASCADE,
    name text NOT NULL CONSTRAINT name_is_short CHECK (char_length(name) BETWEEN 1 AND 200),
    key_hash bytea NOT NULL CONSTRAINT one_key_per_hash UNIQUE,
    key_start text NOT NULL,
    scopes text[] NOT NULL,
    created_by uuid REFERENCES users ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_key_by_organization ON api_key (organization_id, id);

CREATE TABLE event (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organization,
    status text NOT NULL CONSTRAINT known_status CHECK (status IN ('draft', 'published', 'paused', 'cancelled')),
    title text NOT NULL CONSTRAINT title_is_short CHECK (char_length(title) BETWEEN 1 AND 200),
    description text NOT NULL CONSTRAINT description_is_short CHECK (char_length(description) <= 20000),
    venue text NOT NULL CONSTRAINT venue_is_short CHECK (char_length(venue) <= 500),
    time_zone text NOT NULL,
    starts_at timestamptz,
    ends_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple', title || ' ' || venue || ' ' || description)) STORED,
    CONSTRAINT ends_after_it_starts CHECK (ends_at IS NULL OR starts_at IS NULL OR ends_at > starts_at)
);
CREATE INDEX event_by_start ON event ((coalesce(starts_at, 'infinity')), id);
CREATE INDEX event_by_organization ON event (organization_id, id);
CREATE INDEX event_by_words ON event USING gin (words);

-- The seats. A narrow row of its own that no foreign key points at: a FOR UPDATE on a referenced row would make
-- every insert of a child wait. last_sequence is the number of the last ledger entry about this pool; since a
-- change locks all pools of its event, their greatest last_sequence is the event's, and no gap can arise.
CREATE TABLE capacity_pool (
    event_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    total integer NOT NULL CONSTRAINT total_is_not_negative CHECK (total >= 0),
    held integer NOT NULL DEFAULT 0 CONSTRAINT held_is_not_negative CHECK (held >= 0),
    sold integer NOT NULL DEFAULT 0 CONSTRAINT sold_is_not_negative CHECK (sold >= 0),
    blocked integer NOT NULL DEFAULT 0 CONSTRAINT blocked_is_not_negative CHECK (blocked >= 0),
    last_sequence bigint NOT NULL,
    PRIMARY KEY (event_id, id),
    CONSTRAINT never_overbooked CHECK (held + sold + blocked <= total)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE ticket_type (
    event_id uuid NOT NULL REFERENCES event ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL CONSTRAINT name_is_short CHECK (char_length(name) BETWEEN 1 AND 200),
    description text NOT NULL CONSTRAINT description_is_short CHECK (char_length(description) <= 2000),
    price_cents bigint NOT NULL DEFAULT 0 CONSTRAINT price_is_not_negative CHECK (price_cents >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, id)
);

-- What a ticket type draws on: one or more pools, and all must fit.
CREATE TABLE ticket_type_pool (
    event_id uuid NOT NULL,
    ticket_type_id uuid NOT NULL,
    pool_id uuid NOT NULL,
    PRIMARY KEY (event_id, ticket_type_id, pool_id),
    FOREIGN KEY (event_id, ticket_type_id) REFERENCES ticket_type ON DELETE CASCADE
);

-- person_key is the case-folded e-mail of a registration (an order of one free ticket made in one step); orders that
-- may be placed more than once by one person leave it empty. sequence is the ledger's number of the last change.
CREATE TABLE orders (
    event_id uuid NOT NULL REFERENCES event,
    id uuid NOT NULL,
    status text NOT NULL CONSTRAINT known_status CHECK (status IN
        ('held', 'awaiting_payment', 'awaiting_approval', 'confirmed', 'cancelled', 'expired', 'rejected')),
    buyer_name text NOT NULL CONSTRAINT name_is_short CHECK (char_length(buyer_name) BETWEEN 1 AND 200),
    buyer_email text NOT NULL CONSTRAINT email_is_short CHECK (char_length(buyer_email) BETWEEN 3 AND 254),
    buyer_user_id uuid REFERENCES users ON DELETE SET NULL,
    person_key text,
    secret_hash bytea NOT NULL,
    total_cents bigint NOT NULL DEFAULT 0 CONSTRAINT total_is_not_negative CHECK (total_cents >= 0),
    sequence bigint NOT NULL,
    created_at timestamptz NOT NULL,
    cancelled_at timestamptz,
    PRIMARY KEY (event_id, id),
    CONSTRAINT cancelled_says_when CHECK ((status = 'cancelled') = (cancelled_at IS NOT NULL))
);
CREATE INDEX order_by_id ON orders (id);
CREATE INDEX order_by_user ON orders (buyer_user_id, id) WHERE buyer_user_id IS NOT NULL;
CREATE UNIQUE INDEX one_active_registration_per_person ON orders (event_id, person_key)
    WHERE status IN ('held', 'awaiting_payment', 'awaiting_approval', 'confirmed');

CREATE TABLE ticket (
    event_id uuid NOT NULL,
    id uuid NOT NULL,
    order_id uuid NOT NULL,
    ticket_type_id uuid NOT NULL,
    status text NOT NULL CONSTRAINT known_status CHECK (status IN ('pending', 'valid', 'void')),
    attendee_name text NOT NULL CONSTRAINT name_is_short CHECK (char_length(attendee_name) BETWEEN 1 AND 200),
    attendee_email text NOT NULL CONSTRAINT email_is_short CHECK (char_length(attendee_email) BETWEEN 3 AND 254),
    code text NOT NULL,
    PRIMARY KEY (event_id, id),
    CONSTRAINT one_ticket_per_code UNIQUE (event_id, code),
    FOREIGN KEY (event_id, order_id) REFERENCES orders,
    FOREIGN KEY (event_id, ticket_type_id) REFERENCES ticket_type
);
CREATE INDEX ticket_by_order ON ticket (event_id, order_id);

-- Every change of a pool's counters, for ever: what they were after it, why, for which order, and by whom.
-- No foreign keys: a deleted draft leaves its history behind.
CREATE TABLE ledger (
    event_id uuid NOT NULL,
    sequence bigint NOT NULL CONSTRAINT sequence_counts_from_one CHECK (sequence >= 1),
    pool_id uuid NOT NULL,
    reason text NOT NULL CONSTRAINT known_reason CHECK (reason IN
        ('opened', 'registered', 'cancelled', 'resized', 'event_cancelled', 'deleted')),
    order_id uuid,
    actor text NOT NULL,
    total integer NOT NULL,
    held integer NOT NULL,
    sold integer NOT NULL,
    blocked integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, sequence),
    CONSTRAINT never_overbooked CHECK (least(held, sold, blocked) >= 0 AND held + sold + blocked <= total)
);

CREATE FUNCTION refuse_to_rewrite_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_to_rewrite_history();
CREATE TRIGGER ledger_is_never_truncated BEFORE TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_rewrite_history();

-- Answers already given. key_hash is the hash of caller and key; the answer is sealed with a key that only the
-- repeated request can produce, so neither personal data nor a secret lies here in the clear.
CREATE TABLE idempotency_key (
    key_hash bytea PRIMARY KEY,
    answer bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    replayed_at timestamptz
);
CREATE INDEX idempotency_key_by_age ON idempotency_key (created_at);
