"""What Ceph's S3 gateway does with conditions: honest for puts, not for uploads in parts."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from support.emulators import Ceph, Place
from support.rawhttp import together


def status(call: Any, **parameters: Any) -> int:
    """The status of one request."""
    try:
        answer = call(**parameters)
    except ClientError as error:
        answer = error.response
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def test_clients_read_what_they_wrote(ceph: Place) -> None:
    """Protects all tests here: content and listing are seen at once through s3fs."""
    ceph.fs.pipe_file(f"{ceph.path}/a", b"x" * 1000)
    assert ceph.names() == ["a"]
    assert ceph.fs.cat_file(f"{ceph.path}/a") == b"x" * 1000


def test_one_of_many_creates(ceph: Place, ceph_server: Ceph) -> None:
    """Protects commits on Ceph: of 32 puts if absent at once one wins, with its content."""
    client = ceph_server.client()
    where = {"Bucket": ceph.bucket, "Key": "slot"}

    def put(writer: int) -> int:
        body = f"{writer}".encode()
        return status(client.put_object, **where, Body=body, IfNoneMatch="*")

    found = together(32, put)
    assert found.count(200) == 1, found
    assert client.get_object(**where)["Body"].read() == f"{found.index(200)}".encode()


def test_uploads_in_parts_ignore_conditions(ceph: Place, ceph_server: Ceph) -> None:
    """Protects the rule to prove each operation: completing an upload ignores If-None-Match here."""
    client = ceph_server.client()
    where = {"Bucket": ceph.bucket, "Key": "big"}
    assert status(client.put_object, **where, Body=b"old") == 200
    upload = client.create_multipart_upload(**where)["UploadId"]
    part = client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"new")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    complete = client.complete_multipart_upload
    found = status(complete, **where, UploadId=upload, MultipartUpload=parts, IfNoneMatch="*")
    assert found == 200
    assert client.get_object(**where)["Body"].read() == b"new"
