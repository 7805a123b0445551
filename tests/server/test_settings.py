"""Settings come from the environment, and what is wrong with them is told without showing them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.errors import SettingsError
from server.settings import Settings, load_settings

__all__: list[str] = []


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PJAIS_{name.upper()}", raising=False)


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.database_url) == ("127.0.0.1", 8787, None)


def test_the_environment_is_read_and_what_is_chosen_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PJAIS_PORT", "9000")
    monkeypatch.setenv("PJAIS_HOST", "0.0.0.0")  # noqa: S104 - read, not listened on
    assert load_settings().port == 9000
    settings = load_settings(port=9001, host=None)
    assert (settings.port, settings.host) == (9001, "0.0.0.0")  # noqa: S104


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PJAIS_DATABASE_URL", "")
    assert load_settings().database_url is None


def test_the_data_folder_follows_the_desktop_convention(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings().data == tmp_path / "pjais-server"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings().data == tmp_path / ".local" / "share" / "pjais-server"


def test_every_wrong_variable_is_named_with_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PJAIS_PORT", "70000")
    monkeypatch.setenv("PJAIS_LOCK_TIMEOUT_MS", "0")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert set(refused.value.problems) == {
        "PJAIS_PORT: Input should be less than or equal to 65535",
        "PJAIS_LOCK_TIMEOUT_MS: Input should be greater than 0",
    }


def test_a_pool_that_is_no_range_is_refused() -> None:
    with pytest.raises(SettingsError, match="pool_size_min must not be more than pool_size_max"):
        load_settings(pool_size_min=9, pool_size_max=8)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="PJAIS_PROT: Extra inputs are not permitted"):
        load_settings(prot=1)


def test_a_database_url_of_another_kind_is_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError, match="PJAIS_DATABASE_URL: must begin with postgresql://") as refused:
        load_settings(database_url="mysql://me:hunter2@host/db")
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_the_password_does_not_show_in_logs() -> None:
    settings = load_settings(database_url="postgresql://me:hunter2@host/db")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == "postgresql://me:hunter2@host/db"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load_settings().port = 1


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    assert (Settings.model_fields[name].description or "").endswith(".")
