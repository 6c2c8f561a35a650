import contextlib
import http.client
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from servers.faults import Call, Delay, Fault, FaultProxy, Refuse

BODY = bytes(range(256)) * 1200
ONE_SERVER = pytest.mark.parametrize("server", ["moto"], indirect=True)
"""For what takes its time and is a matter of the proxy alone."""


@pytest.fixture(params=["moto", "rgw"])
def server(request):
    """Either server; RGW checks signatures, so the proxy may change nothing that is signed."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def proxy(server):
    with FaultProxy(server) as proxy:
        yield proxy


@pytest.fixture
def bucket(proxy):
    return proxy.new_bucket()


@pytest.fixture
def s3(proxy):
    """A client that sees the proxy, and tries once."""
    return proxy.client()


@pytest.fixture
def behind(server):
    """A client that sees the server itself."""
    return server.client()


def put(s3, bucket, key="k", body=BODY):
    return s3.put_object(Bucket=bucket, Key=key, Body=body)


def get(s3, bucket, key="k"):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def keys(s3, bucket):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def test_without_a_fault_everything_passes_and_is_logged(proxy, bucket, s3):
    put(s3, bucket, "a b/ä")
    assert get(s3, bucket, "a b/ä") == BODY
    assert s3.head_object(Bucket=bucket, Key="a b/ä")["ContentLength"] == len(BODY)
    assert s3.get_object(Bucket=bucket, Key="a b/ä", Range="bytes=2-4")["Body"].read() == BODY[2:5]
    assert keys(s3, bucket) == ["a b/ä"]
    s3.delete_object(Bucket=bucket, Key="a b/ä")
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=bucket, Key="a b/ä")
    methods = [method for method, _ in proxy.log]
    assert methods == ["PUT", "GET", "HEAD", "GET", "GET", "DELETE", "HEAD"]
    assert proxy.log[0][1] == f"/{bucket}/a%20b/%C3%A4"
    assert proxy.log[4][1].startswith(f"/{bucket}?list-type=2")


def test_a_request_that_the_server_refuses_with_or_without_its_body_leaves_a_connection_of_use(bucket, s3):
    put(s3, bucket)
    for _ in range(10):
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key="k", Body=BODY * 10, IfNoneMatch="*")
        with pytest.raises(ClientError, match="NoSuchBucket"):
            put(s3, "no-such-bucket-here", body=BODY * 10)
        assert get(s3, bucket) == BODY


def test_parts_of_many_mebibytes_pass_from_many_threads(bucket, s3):
    data = os.urandom(24 << 20)
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(data), bucket, "big", Config=parts)
    read = io.BytesIO()
    s3.download_fileobj(bucket, "big", read, Config=parts)
    assert read.getvalue() == data


def test_many_connections_at_once_do_not_disturb_each_other(proxy, bucket, s3):
    def there_and_back(number):
        body = BODY + str(number).encode()
        put(s3, bucket, str(number), body)
        return get(s3, bucket, str(number)) == body

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(40)))
    assert len(proxy.log) == 80


@contextlib.contextmanager
def raw_put(s3, bucket):
    """A bare HTTP connection, and the address at which it may put the object `k`."""
    url = urlsplit(s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}))
    with contextlib.closing(http.client.HTTPConnection(url.hostname, url.port, timeout=10)) as line:
        yield line, f"{url.path}?{url.query}"


def test_a_body_in_chunks_passes_whole_or_not_at_all(moto):
    headers = {"Transfer-Encoding": "chunked"}  # which RGW does not accept
    with FaultProxy(moto) as proxy:
        bucket, behind = proxy.new_bucket(), moto.client()
        with raw_put(proxy.client(), bucket) as (line, target):
            line.request("PUT", target, body=iter([BODY, b"end"]), encode_chunked=True, headers=headers)
            assert line.getresponse().status == 200
        assert get(behind, bucket) == BODY + b"end"
        behind.delete_object(Bucket=bucket, Key="k")
        proxy.arm(1, Fault.TRUNCATE_REQUEST)
        with raw_put(proxy.client(), bucket) as (line, target):
            with contextlib.suppress(ConnectionError):  # the proxy may have hung up by then
                line.request("PUT", target, body=iter([b"begin", b"end"]), encode_chunked=True, headers=headers)
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                line.getresponse()
        assert keys(behind, bucket) == []


def test_a_client_that_waits_to_be_asked_for_the_body_is_asked_by_the_server(proxy, bucket, s3, behind):
    with raw_put(s3, bucket) as (line, target):
        line.putrequest("PUT", target)
        line.putheader("Content-Length", str(len(BODY)))
        line.putheader("Expect", "100-continue")
        line.endheaders()
        assert line.sock.recv(1000).lower().startswith(b"http/1.1 100 continue")
        line.send(BODY)
        assert line.getresponse().status == 200
    assert get(behind, bucket) == BODY


def test_an_answer_in_chunks_is_corrupted_and_cut_within_its_content(proxy, bucket, s3):
    put(s3, bucket)
    proxy.reset()
    proxy.arm(0, Fault.CORRUPT_RESPONSE)
    proxy.arm(1, Fault.TRUNCATE_RESPONSE)
    url = urlsplit(s3.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket}))
    answers = []
    for _ in range(3):
        with contextlib.closing(http.client.HTTPConnection(url.hostname, url.port, timeout=10)) as line:
            line.request("GET", f"{url.path}?{url.query}")
            try:
                answers.append(line.getresponse().read())
            except http.client.IncompleteRead as error:
                answers.append(error.partial)
    corrupt, half, whole = answers
    assert sum(a != b for a, b in zip(corrupt, whole, strict=True)) == 1
    assert len(half) < len(whole)
    assert b"<Key>k</Key>" in whole


def test_a_request_dropped_before_is_not_done_and_one_dropped_after_is(proxy, bucket, s3, behind):
    proxy.arm(0, Fault.DROP_BEFORE)
    proxy.arm(1, Fault.DROP_AFTER)
    with pytest.raises(ConnectionClosedError):
        put(s3, bucket, "before")
    with pytest.raises(ConnectionClosedError):
        put(s3, bucket, "after")
    put(s3, bucket, "honest")
    assert keys(behind, bucket) == ["after", "honest"]
    assert get(behind, bucket, "after") == BODY
    assert len(proxy.log) == 3


def test_half_a_request_makes_no_object(proxy, bucket, s3, behind):
    proxy.arm_from(0, Fault.TRUNCATE_REQUEST)
    for body in (BODY, BODY * 30, b"x"):
        with pytest.raises(ConnectionClosedError):
            put(s3, bucket, body=body)
    assert keys(behind, bucket) == []


def test_half_an_answer_is_an_error_to_its_reader(proxy, bucket, s3):
    put(s3, bucket)
    proxy.reset()
    proxy.arm(0, Fault.TRUNCATE_RESPONSE)
    body = s3.get_object(Bucket=bucket, Key="k")["Body"]
    with pytest.raises((IncompleteReadError, ResponseStreamingError)):
        body.read()
    assert get(s3, bucket) == BODY


def test_a_corrupted_answer_differs_in_one_bit_and_looks_whole(proxy, bucket, s3):
    put(s3, bucket)
    proxy.arm(1, Fault.CORRUPT_RESPONSE)
    read = get(s3, bucket)
    assert len(read) == len(BODY)
    assert [(at, a ^ b) for at, (a, b) in enumerate(zip(read, BODY, strict=True)) if a != b] == [(len(BODY) // 2, 1)]
    assert get(s3, bucket) == BODY


@ONE_SERVER
def test_a_delayed_request_comes_late_also_where_the_client_has_given_up(proxy, bucket, s3, behind):
    proxy.arm(0, Delay(0.4))
    began = time.monotonic()
    put(s3, bucket)
    assert 0.4 <= time.monotonic() - began < 8
    proxy.arm(1, Delay(0.8))
    with pytest.raises(ReadTimeoutError):
        proxy.client(read_timeout=0.2).delete_object(Bucket=bucket, Key="k")
    assert keys(behind, bucket) == ["k"]
    time.sleep(0.8)
    assert keys(behind, bucket) == []


def test_a_hanging_request_ends_with_the_patience_of_the_client(proxy, bucket, behind):
    put(behind, bucket)
    proxy.arm(0, Fault.HANG)
    hasty = proxy.client(read_timeout=0.2)
    began = time.monotonic()
    with pytest.raises(ReadTimeoutError):
        get(hasty, bucket)
    assert 0.2 <= time.monotonic() - began < 8
    assert get(hasty, bucket) == BODY


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(Fault.ERROR_500, 500, "InternalError"), (Fault.ERROR_503, 503, "ServiceUnavailable"), (Fault.SLOW_DOWN, 503, "SlowDown")],
)
def test_an_error_has_the_status_and_code_of_s3_and_does_nothing(proxy, bucket, s3, behind, fault, status, code):
    proxy.arm_from(0, fault)
    for call in (lambda: put(s3, bucket), lambda: put(s3, bucket, body=BODY * 30), lambda: get(s3, bucket)):
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == code
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    with pytest.raises(ClientError, match=str(status)):
        s3.head_object(Bucket=bucket, Key="k")
    assert keys(behind, bucket) == []


@ONE_SERVER
def test_a_refusing_server_is_back_on_the_same_port_after_its_time(proxy, bucket, s3):
    put(s3, bucket)
    proxy.arm(1, Refuse(0.8))
    with pytest.raises(ConnectionClosedError):
        get(s3, bucket)
    began = time.monotonic()
    with pytest.raises(EndpointConnectionError):
        get(s3, bucket)
    time.sleep(max(0, began + 1 - time.monotonic()))
    assert get(s3, bucket) == BODY
    assert len(proxy.log) == 3, "a refused connection is no request"


def test_a_function_is_called_before_the_request_is_passed_on(proxy, bucket, s3, behind):
    seen = []
    proxy.arm(0, Call(lambda: seen.append(keys(behind, bucket))))
    put(s3, bucket)
    assert (seen, keys(behind, bucket)) == ([[]], ["k"])
    proxy.arm(1, Call(proxy.cut))
    with pytest.raises(ConnectionClosedError):
        get(s3, bucket)
    with pytest.raises(EndpointConnectionError):
        get(s3, bucket)


def test_a_cut_ends_requests_in_progress_and_refuses_new_ones_until_healed(proxy, bucket, s3):
    put(s3, bucket)
    proxy.arm(1, Fault.HANG)
    threading.Timer(0.3, proxy.cut).start()
    with pytest.raises(ConnectionClosedError):
        get(s3, bucket)
    with pytest.raises(EndpointConnectionError):
        get(s3, bucket)
    proxy.heal()
    assert get(s3, bucket) == BODY
    proxy.cut()
    proxy.cut()
    proxy.reset()
    assert get(s3, bucket) == BODY
    assert proxy.log == [("GET", f"/{bucket}/k")]


def test_faults_hit_the_positions_they_were_armed_for(proxy, bucket, s3):
    proxy.arm(1, Fault.ERROR_500)
    proxy.arm_from(3, Fault.SLOW_DOWN)
    proxy.arm(4, None)
    proxy.arm_from(6, None)
    outcomes = []
    for _ in range(8):
        try:
            put(s3, bucket)
            outcomes.append("done")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
    assert outcomes == ["done", "InternalError", "done", "SlowDown", "done", "SlowDown", "done", "done"]
    proxy.reset()
    proxy.arm(0, Fault.ERROR_500)
    with pytest.raises(ClientError, match="InternalError"):
        put(s3, bucket)


def test_the_retries_of_boto_get_over_one_lost_answer(proxy, bucket):
    proxy.arm(0, Fault.DROP_AFTER)
    put(proxy.client(retries={"total_max_attempts": 3, "mode": "standard"}), bucket)
    assert proxy.log == [("PUT", f"/{bucket}/k")] * 2
