"""What the host hands to the bake."""

from __future__ import annotations

from pathlib import Path

import pytest

from aisandbox.builder import host
from aisandbox.builder.host import HostSettings


@pytest.fixture
def pip_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pip configuration of the test's own."""
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_CERT", *host.CA_VARIABLES, *host.PROXY_VARIABLES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    path = tmp_path / "pip.conf"
    path.write_text("")
    # pip reads only this file, and no global one.
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    monkeypatch.setattr(host, "_pip_settings", lambda real=host._pip_settings: _own(real(), path))
    return path


def _own(settings: dict[str, list[str]], path: Path) -> dict[str, list[str]]:
    """Only what the test's file sets: the machine's global pip.conf is read by pip as well."""
    names = {line.split("=")[0].strip() for line in path.read_text().splitlines() if "=" in line}
    return {name: value for name, value in settings.items() if name in names}


def test_pip_settings_become_uv_variables(pip_settings: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    pip_settings.write_text(
        "[global]\nindex-url = https://mirror.test/simple\nextra-index-url = https://one.test/simple https://two.test/simple\n"
        f"find-links = {wheels}\ncert = /etc/ssl/mine.pem\n"
    )
    settings = host.read()
    environment = settings.uv_environment(cpu_torch=True)
    assert environment["UV_DEFAULT_INDEX"] == "https://mirror.test/simple"
    assert environment["UV_INDEX"] == "https://one.test/simple https://two.test/simple"
    assert environment["UV_FIND_LINKS"] == str(wheels)
    assert environment["SSL_CERT_FILE"] == "/etc/ssl/mine.pem"
    assert str(wheels) in settings.paths


def test_only_the_cpu_environment_sees_find_links(pip_settings: Path) -> None:
    pip_settings.write_text("[global]\nfind-links = /opt/somewhere\n")
    assert "UV_FIND_LINKS" not in host.read().uv_environment()


def test_without_find_links_torch_comes_from_its_own_index(pip_settings: Path) -> None:
    settings = host.read()
    assert settings.uv_environment(cpu_torch=True)["UV_INDEX"] == host.PYTORCH_CPU_INDEX
    assert "UV_INDEX" not in settings.uv_environment()


def test_environment_variables_win_over_files(pip_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_settings.write_text("[global]\nindex-url = https://file.test/simple\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.test/simple")
    assert host.read().index_url == "https://variable.test/simple"


def test_proxies_are_passed_on(pip_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    assert host.read().uv_environment()["https_proxy"] == "http://proxy.test:3128"


def test_local_paths(tmp_path: Path) -> None:
    simple = tmp_path / "index" / "simple"
    simple.mkdir(parents=True)
    settings = HostSettings(None, (simple.as_uri(),), ("https://elsewhere.test/wheels",), None, {})
    assert settings.paths == (str(tmp_path / "index"),)


def test_npm_gets_the_registry_the_bundle_and_the_proxies(
    pip_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.delenv("npm_config_registry", raising=False)
    monkeypatch.delenv("NPM_CONFIG_REGISTRY", raising=False)
    (tmp_path / ".npmrc").write_text("fund=false\nregistry = https://npm.example/\n")
    settings = host.read().npm_environment()
    assert settings["npm_config_registry"] == "https://npm.example/"
    assert settings["https_proxy"] == "http://proxy:3128"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://other.example/")
    assert host.read().npm_environment()["npm_config_registry"] == "https://other.example/"


def test_pips_strongest_file_wins_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    user = tmp_path / "a-user"
    (user / "pip").mkdir(parents=True)
    (user / "pip" / "pip.conf").write_text(
        "[global]\nindex-url = https://user.test/simple\nextra-index-url =\n    https://one.test/simple\n    https://two.test/simple\n"
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(user))
    assert host.read().index_url == "https://user.test/simple"
    assert host.read().extra_index_urls == ("https://one.test/simple", "https://two.test/simple")
    for folder in ("0-first", "z-last"):
        file = tmp_path / folder / "pip.conf"
        file.parent.mkdir()
        file.write_text(f"[global]\nindex-url = https://{folder}.test/simple\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
        assert host.read().index_url == f"https://{folder}.test/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.test/simple")
    assert host.read().index_url == "https://variable.test/simple"


def test_a_proxy_of_pip_or_apt_is_everybodys(
    pip_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = tmp_path / "apt.conf"
    monkeypatch.setenv("APT_CONFIG", str(apt))
    (tmp_path / "none").mkdir()
    apt.write_text(f'Dir::Etc::parts "{tmp_path}/none";\n')
    assert host.read().proxies == {}
    apt.write_text(f'Dir::Etc::parts "{tmp_path}/none";\nAcquire::http::Proxy "http://apt.test:3128";\n')
    both = {"http_proxy": "http://apt.test:3128", "https_proxy": "http://apt.test:3128"}
    assert host.read().proxies == both
    pip_settings.write_text("[global]\nproxy = http://pip.test:8080\n")
    assert host.read().uv_environment()["https_proxy"] == "http://pip.test:8080"
    assert host.read().npm_environment()["http_proxy"] == "http://pip.test:8080"
    monkeypatch.setenv("https_proxy", "http://environment.test:1")
    assert host.read().proxies == {"https_proxy": "http://environment.test:1"}
