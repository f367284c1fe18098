"""The recounts, in SQL of their own: they share no code with what they check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rowlock.reports.model import Check

if TYPE_CHECKING:
    from rowlock.kernel.database import Connection

# An order draws one unit for each of its tickets from every pool of the ticket's type: sold once it is confirmed,
# held while it waits.
_UNITS = """
    units AS (
        SELECT t.event_id, p.pool_id, t.order_id, o.status
        FROM ticket t
        JOIN orders o ON o.event_id = t.event_id AND o.id = t.order_id
        JOIN ticket_type_pool p ON p.event_id = t.event_id AND p.ticket_type_id = t.ticket_type_id
        WHERE t.status <> 'void' AND o.status IN ('held', 'awaiting_payment', 'awaiting_approval', 'confirmed')
    )
"""
_STEPS = """
    steps AS (
        SELECT event_id, pool_id, sequence, reason, order_id, total, held, sold, blocked,
               total - coalesce(lag(total) OVER earlier, 0) AS total_step,
               held - coalesce(lag(held) OVER earlier, 0) AS held_step,
               sold - coalesce(lag(sold) OVER earlier, 0) AS sold_step,
               blocked - coalesce(lag(blocked) OVER earlier, 0) AS blocked_step
        FROM ledger
        WINDOW earlier AS (PARTITION BY event_id, pool_id ORDER BY sequence)
    )
"""

CHECKS = (
    Check(
        "never_overbooked",
        "No pool has given out more than it has.",
        "SELECT event_id, id AS pool_id, total, held, sold, blocked FROM capacity_pool"
        " WHERE held + sold + blocked > total OR least(total, held, sold, blocked) < 0 ORDER BY 1, 2 LIMIT $1",
    ),
    Check(
        "seats_equal_tickets",
        "Each pool's counters equal its tickets, counted one by one.",
        f"""
        WITH {_UNITS}, counted AS (
            SELECT event_id, pool_id,
                   count(*) FILTER (WHERE status = 'confirmed') AS sold,
                   count(*) FILTER (WHERE status <> 'confirmed') AS held
            FROM units GROUP BY event_id, pool_id
        )
        SELECT coalesce(p.event_id, c.event_id) AS event_id, coalesce(p.id, c.pool_id) AS pool_id,
               p.sold, coalesce(c.sold, 0) AS sold_tickets, p.held, coalesce(c.held, 0) AS held_tickets
        FROM capacity_pool p FULL JOIN counted c ON c.event_id = p.event_id AND c.pool_id = p.id
        WHERE p.sold IS DISTINCT FROM coalesce(c.sold, 0) OR p.held IS DISTINCT FROM coalesce(c.held, 0)
        ORDER BY 1, 2 LIMIT $1
        """,
    ),
    Check(
        "seats_equal_ledger",
        "Each pool's counters equal its last ledger entry.",
        """
        WITH last AS (
            SELECT DISTINCT ON (event_id, pool_id) event_id, pool_id, sequence, reason, total, held, sold, blocked
            FROM ledger ORDER BY event_id, pool_id, sequence DESC
        )
        SELECT coalesce(p.event_id, l.event_id) AS event_id, coalesce(p.id, l.pool_id) AS pool_id,
               p.total, p.held, p.sold, p.blocked, p.last_sequence,
               l.total AS ledger_total, l.held AS ledger_held, l.sold AS ledger_sold, l.blocked AS ledger_blocked,
               l.sequence AS ledger_sequence
        FROM capacity_pool p FULL JOIN last l ON l.event_id = p.event_id AND l.pool_id = p.id
        WHERE (p.id IS NULL AND l.reason <> 'deleted')
           OR (p.id IS NOT NULL AND (p.total, p.held, p.sold, p.blocked, p.last_sequence)
               IS DISTINCT FROM (l.total, l.held, l.sold, l.blocked, l.sequence))
        ORDER BY 1, 2 LIMIT $1
        """,
    ),
    Check(
        "ledger_has_no_gaps",
        "Each event's ledger counts 1, 2, 3 … with no number missing.",
        "SELECT event_id, count(*) AS entries, min(sequence) AS first, max(sequence) AS last FROM ledger"
        " GROUP BY event_id HAVING min(sequence) <> 1 OR max(sequence) <> count(*) ORDER BY 1 LIMIT $1",
    ),
    Check(
        "ledger_never_overbooked",
        "At no entry of the ledger was more given out than there was.",
        "SELECT event_id, sequence, total, held, sold, blocked FROM ledger"
        " WHERE held + sold + blocked > total OR least(total, held, sold, blocked) < 0 ORDER BY 1, 2 LIMIT $1",
    ),
    Check(
        "ledger_steps_fit_their_reasons",
        "Each entry changes what its reason changes, by as much, and nothing else.",
        f"""
        WITH {_STEPS}
        SELECT event_id, sequence, reason, total_step, held_step, sold_step, blocked_step FROM steps
        WHERE NOT CASE reason
            WHEN 'opened' THEN (held_step, sold_step, blocked_step) = (0, 0, 0) AND total_step >= 0
            WHEN 'resized' THEN (held_step, sold_step, blocked_step) = (0, 0, 0) AND total_step <> 0
            WHEN 'deleted' THEN (total, held, sold, blocked) = (0, 0, 0, 0) AND sold_step = 0 AND held_step = 0
            WHEN 'registered' THEN (total_step, held_step, sold_step, blocked_step) = (0, 0, 1, 0)
            WHEN 'cancelled' THEN (total_step, held_step, sold_step, blocked_step) = (0, 0, -1, 0)
            WHEN 'event_cancelled' THEN (total_step, held_step, sold_step, blocked_step) = (0, 0, -1, 0)
            ELSE false END
        ORDER BY 1, 2 LIMIT $1
        """,
    ),
    Check(
        "orders_equal_ledger",
        "Each order's tickets equal what the ledger says it took and gave back; no entry is without an order.",
        f"""
        WITH {_UNITS}, {_STEPS}, booked AS (
            SELECT event_id, pool_id, order_id, sum(sold_step) AS sold, sum(held_step) AS held
            FROM steps WHERE order_id IS NOT NULL GROUP BY event_id, pool_id, order_id
        ), counted AS (
            SELECT event_id, pool_id, order_id,
                   count(*) FILTER (WHERE status = 'confirmed') AS sold,
                   count(*) FILTER (WHERE status <> 'confirmed') AS held
            FROM units GROUP BY event_id, pool_id, order_id
        )
        SELECT event_id, pool_id, order_id, coalesce(b.sold, 0) AS sold_in_ledger, coalesce(c.sold, 0) AS sold_tickets,
               coalesce(b.held, 0) AS held_in_ledger, coalesce(c.held, 0) AS held_tickets
        FROM booked b FULL JOIN counted c USING (event_id, pool_id, order_id)
        WHERE coalesce(b.sold, 0) <> coalesce(c.sold, 0) OR coalesce(b.held, 0) <> coalesce(c.held, 0)
        ORDER BY 1, 2, 3 LIMIT $1
        """,
    ),
    Check(
        "orders_name_their_entry",
        "Each order's sequence is its last ledger entry, and each entry's order exists.",
        """
        WITH last AS (
            SELECT event_id, order_id, max(sequence) AS sequence FROM ledger WHERE order_id IS NOT NULL
            GROUP BY event_id, order_id
        )
        SELECT coalesce(o.event_id, l.event_id) AS event_id, coalesce(o.id, l.order_id) AS order_id, o.sequence,
               l.sequence AS ledger_sequence
        FROM orders o FULL JOIN last l ON l.event_id = o.event_id AND l.order_id = o.id
        WHERE o.sequence IS DISTINCT FROM l.sequence ORDER BY 1, 2 LIMIT $1
        """,
    ),
    Check(
        "one_active_registration_per_person",
        "Nobody holds two active registrations for one event.",
        """
        SELECT event_id, count(*) AS registrations, min(id::text) AS order_id FROM orders
        WHERE person_key IS NOT NULL AND status IN ('held', 'awaiting_payment', 'awaiting_approval', 'confirmed')
        GROUP BY event_id, person_key HAVING count(*) > 1 ORDER BY 1, 3 LIMIT $1
        """,
    ),
    Check(
        "tickets_follow_their_orders",
        "Tickets are valid in confirmed orders, void in ended ones, and every order has one.",
        """
        SELECT o.event_id, o.id AS order_id, o.status, t.id AS ticket_id, t.status AS ticket_status
        FROM orders o LEFT JOIN ticket t ON t.event_id = o.event_id AND t.order_id = o.id
        WHERE t.id IS NULL OR t.status <> CASE
            WHEN o.status = 'confirmed' THEN 'valid'
            WHEN o.status IN ('cancelled', 'expired', 'rejected') THEN 'void'
            ELSE 'pending' END
        ORDER BY 1, 2 LIMIT $1
        """,
    ),
    Check(
        "one_ticket_per_code",
        "No two tickets of an event have the same code.",
        "SELECT event_id, count(*) AS tickets, min(id::text) AS ticket_id FROM ticket GROUP BY event_id, code"
        " HAVING count(*) > 1 ORDER BY 1, 3 LIMIT $1",
    ),
    Check(
        "the_walls_stand",
        "The constraints, unique indexes and triggers that back the program are in place and enforced.",
        """
        SELECT wall FROM (VALUES
            ('never_overbooked on capacity_pool', EXISTS (SELECT FROM pg_constraint
                WHERE conname = 'never_overbooked' AND conrelid = 'capacity_pool'::regclass AND convalidated)),
            ('never_overbooked on ledger', EXISTS (SELECT FROM pg_constraint
                WHERE conname = 'never_overbooked' AND conrelid = 'ledger'::regclass AND convalidated)),
            ('one_active_registration_per_person', EXISTS (SELECT FROM pg_index
                WHERE indexrelid = to_regclass('one_active_registration_per_person') AND indisunique AND indisvalid)),
            ('one_ticket_per_code', EXISTS (SELECT FROM pg_constraint
                WHERE conname = 'one_ticket_per_code' AND conrelid = 'ticket'::regclass)),
            ('ledger_is_append_only', EXISTS (SELECT FROM pg_trigger
                WHERE tgname = 'ledger_is_append_only' AND tgrelid = 'ledger'::regclass AND tgenabled IN ('O', 'A'))),
            ('ledger_is_never_truncated', EXISTS (SELECT FROM pg_trigger
                WHERE tgname = 'ledger_is_never_truncated' AND tgrelid = 'ledger'::regclass
                AND tgenabled IN ('O', 'A')))
        ) AS walls (wall, stands) WHERE NOT stands ORDER BY 1 LIMIT $1
        """,
    ),
    Check(
        "acknowledged_is_durable",
        "PostgreSQL writes to disk before it says yes.",
        """
        SELECT name, setting, wanted FROM (VALUES
            ('fsync', 'on'), ('full_page_writes', 'on'), ('synchronous_commit', 'on')
        ) AS needed (name, wanted) JOIN pg_settings USING (name)
        WHERE setting <> wanted
          AND NOT (name = 'synchronous_commit' AND setting IN ('remote_write', 'remote_apply'))
        ORDER BY 1 LIMIT $1
        """,
    ),
)

_COUNTED = """
SELECT (SELECT count(*) FROM event) AS events, (SELECT count(*) FROM capacity_pool) AS pools,
       (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM ticket) AS tickets,
       (SELECT count(*) FROM ledger) AS entries
"""


async def breaking_rows(connection: Connection, check: Check, limit: int) -> list[dict[str, Any]]:
    """Return the rows that break a check."""
    return [dict(row) for row in await connection.fetch(check.sql, limit)]


async def counted(connection: Connection) -> dict[str, int]:
    """Return how many rows of each kind there are."""
    row = await connection.fetch_one(_COUNTED)
    return dict(row) if row else {}
