"""Errors of a tracking server, told in one line without secrets."""

from __future__ import annotations

from ptal_ray.tracking.server import one_line, redacted


def test_passwords_are_not_shown():
    assert redacted("https://u:p@host:5000/x") == "https://host:5000/x"
    assert redacted("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"
    error = ValueError("request to http://u:p@host:1/api failed\nmore")
    assert one_line(error) == "request to http://host:1/api failed"
    assert redacted("postgresql://u:p@q/w@host/db") == "postgresql://host/db"
    assert redacted("postgresql://h/db?user=u&password=p&sslmode=x") == (
        "postgresql://h/db?user=u&password=***&sslmode=x"
    )
    assert (
        one_line(ValueError("cannot parse http://u:p/w@host:1/api"))
        == "cannot parse http://host:1/api"
    )


def test_the_reason_is_told_without_the_request_around_it():
    about = "API request to http://u:p@h:1/api failed with exception HTTPConnectionPool(host='h')"
    error = ValueError(f"{about}: (Caused by ProtocolError('Connection aborted.', Gone('bye')))")
    assert one_line(error) == "ProtocolError('Connection aborted.', Gone('bye'))"
    error = ValueError(f"{about}: (Caused by ResponseError('too many 503 error responses'))")
    assert one_line(error).startswith("the server answers with HTTP status 503")


def test_a_token_that_an_error_quotes_is_not_shown(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted\n")
    error = ValueError("Invalid return character in header value: 'Bearer planted\\n'")
    assert one_line(error) == "Invalid return character in header value: 'Bearer ***\\n'"
