"""Identifiers and secrets: unlike one another, also in a forked child."""

from __future__ import annotations

import os
import re

import pytest

from rowlock.kernel.ids import digest, new_code, new_id, new_secret


def test_ids_come_in_order_of_time() -> None:
    ids = [new_id() for _ in range(1000)]

    assert ids == sorted(ids)
    assert {it.version for it in ids} == {7}


def test_codes_and_secrets_have_their_form_and_are_all_different() -> None:
    codes = {new_code() for _ in range(5000)}
    secrets = {new_secret("rlt_") for _ in range(5000)}

    assert len(codes) == len(secrets) == 5000
    assert all(re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}", code) for code in codes)
    assert all(re.fullmatch(r"rlt_[A-Za-z0-9_-]{43}", secret) for secret in secrets)
    assert len({digest(secret) for secret in secrets}) == 5000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_draws_other_numbers() -> None:
    new_secret()  # so that a page of random numbers is there, to be shared by mistake
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, new_secret().encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(readable, 100).decode() != new_secret()
    os.close(readable)
    os.close(writable)
