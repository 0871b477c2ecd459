"""What S3 clients expect of a store, one behaviour a test, through boto3.

    suite.py URL KEY SECRET [NAME...]

Each test has a bucket of its own. Prints a line for each that fails and why, then how many there were; exits 1 if any failed.
"""

import base64
import hashlib
import json
import re
import sys
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
import zlib
from datetime import datetime, timedelta, timezone

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.handlers import set_list_objects_encoding_type_url

URL, KEY, SECRET = sys.argv[1:4]
MIB = 1 << 20
tests = []


def client(**more):
    # What is refused before its body is read must not cost the next request, so nothing is tried again.
    config = Config(retries={"total_max_attempts": 1}, proxies={}, s3={"addressing_style": "path"}, **more.pop("config", {}))
    return boto3.client("s3", endpoint_url=URL, aws_access_key_id=more.pop("key", KEY),
                        aws_secret_access_key=more.pop("secret", SECRET), region_name="us-east-1", config=config, **more)


s3 = client()


def test(function):
    tests.append(function)
    return function


def code(call, **arguments):
    """Status and code of a refusal."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    return None


def same(found, wanted):
    assert found == wanted, f"found {found!r}, wanted {wanted!r}"


def body(bucket, key, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def parts(bucket, key, sizes, **more):
    """Puts an object together from parts of these sizes; its bytes and the answer."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key, **more)["UploadId"]
    done, data = [], b""
    for number, size in enumerate(sizes, 1):
        part = bytes([64 + number % 60]) * size
        data += part
        etag = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part)["ETag"]
        done.append({"PartNumber": number, "ETag": etag})
    answer = s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done})
    return data, answer, upload, done


# --- keys


@test
def keys_are_text_and_lead_nowhere(bucket):
    keys = ["a" * 1024, "a/b", "a", "a/", "/", "//", "/lead", "a//b", "./x", "../x", "x/../y", ".", "..", "a b+c%d&e?f#g", "ü/\u4e2d",
            "_lookoutd", "\\back", "tab\there", " ", "?versionId=x"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        same(body(bucket, key), key.encode())
        same(s3.head_object(Bucket=bucket, Key=key)["ContentLength"], len(key.encode()))
    found = [o["Key"] for p in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket) for o in p["Contents"]]
    same(found, sorted(keys, key=lambda key: key.encode()))


@test
def a_key_that_is_too_long_is_refused(bucket):
    same(code(s3.put_object, Bucket=bucket, Key="k" * 1025, Body=b""), (400, "KeyTooLongError"))


@test
def what_is_not_there_is_404_also_where_keys_lie_below(bucket):
    s3.put_object(Bucket=bucket, Key="dir/file", Body=b"1")
    for key in ["dir", "dir/", "none", "dir/file/more"]:
        same(code(s3.get_object, Bucket=bucket, Key=key), (404, "NoSuchKey"))
        same(code(s3.head_object, Bucket=bucket, Key=key), (404, "404"))


@test
def odd_keys_are_copied_deleted_and_put_together_as_they_are(bucket):
    keys = ["a b+c%d&e?f#g", "../x", "//", "\u00fc/\u4e2d", "dir/", "a\"b'<>"]
    modern = client(config={"signature_version": "s3v4"})
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        s3.copy_object(Bucket=bucket, Key="copy/" + key, CopySource={"Bucket": bucket, "Key": key})
        same(body(bucket, "copy/" + key), key.encode())
        same(fetch(modern.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}))[1], key.encode())
        data, *_ = parts(bucket, "parts/" + key, [10])
        same(body(bucket, "parts/" + key), data)
    every = keys + ["copy/" + key for key in keys] + ["parts/" + key for key in keys]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in every]})
    same(sorted(d["Key"] for d in answer["Deleted"]), sorted(every))
    same(s3.list_objects_v2(Bucket=bucket)["KeyCount"], 0)



# --- buckets


@test
def a_missing_bucket_is_no_such_bucket_everywhere(bucket):
    none = "no-such-bucket-here"
    for call, more in [(s3.put_object, {"Key": "k", "Body": b"1"}), (s3.get_object, {"Key": "k"}), (s3.delete_object, {"Key": "k"}),
                       (s3.create_multipart_upload, {"Key": "k"}), (s3.list_objects, {}), (s3.list_objects_v2, {}), (s3.delete_bucket, {}),
                       (s3.delete_objects, {"Delete": {"Objects": [{"Key": "k"}]}}), (s3.list_multipart_uploads, {}),
                       (s3.get_bucket_location, {}), (s3.get_bucket_versioning, {}),
                       (s3.copy_object, {"Key": "other", "CopySource": f"{none}/k"})]:
        same(code(call, Bucket=none, **more), (404, "NoSuchBucket"))
    same(code(s3.head_bucket, Bucket=none), (404, "404"))
    assert none not in [b["Name"] for b in s3.list_buckets()["Buckets"]]


@test
def a_missing_bucket_is_no_such_bucket_also_for_parts_tags_and_forms(bucket):
    none, upload = "no-such-bucket-here", {"Key": "k", "UploadId": "0" * 32}
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    part = {"Parts": [{"PartNumber": 1, "ETag": "x"}]}
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    select = {"Key": "k", "Expression": "SELECT * FROM s3object s", "ExpressionType": "SQL", "InputSerialization": {"CSV": {}},
              "OutputSerialization": {"CSV": {}}}
    for call, more in [(s3.upload_part, {**upload, "PartNumber": 1, "Body": b"1"}), (s3.list_parts, upload), (s3.abort_multipart_upload, upload),
                       (s3.complete_multipart_upload, {**upload, "MultipartUpload": part}),
                       (s3.upload_part_copy, {**upload, "PartNumber": 1, "CopySource": f"{bucket}/k"}),
                       (s3.copy_object, {"Key": "k", "CopySource": f"{bucket}/k"}),
                       (s3.get_object_tagging, {"Key": "k"}), (s3.put_object_tagging, {"Key": "k", "Tagging": tags}),
                       (s3.delete_object_tagging, {"Key": "k"}), (s3.get_bucket_tagging, {}), (s3.put_bucket_tagging, {"Tagging": tags}),
                       (s3.list_object_versions, {}), (s3.get_object_attributes, {"Key": "k", "ObjectAttributes": ["ETag"]}),
                       (s3.select_object_content, select)]:
        same((call.__name__, code(call, Bucket=none, **more)), (call.__name__, (404, "NoSuchBucket")))
    form = s3.generate_presigned_post(none, "k")
    status, text, _ = post(form, b"content")
    same((status, b"<Code>NoSuchBucket</Code>" in text), (404, True))



@test
def only_an_empty_bucket_can_be_deleted(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    same(code(s3.delete_bucket, Bucket=bucket), (409, "BucketNotEmpty"))
    same(body(bucket, "k"), b"1")
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    same(code(s3.head_bucket, Bucket=bucket), (404, "404"))


@test
def ones_own_bucket_made_again_keeps_what_it_has(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    s3.create_bucket(Bucket=bucket)
    same(body(bucket, "k"), b"1")


@test
def bucket_names_are_those_of_s3(bucket):
    raw = boto3.session.Session().client("s3", endpoint_url=URL, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1",
                                         config=Config(retries={"max_attempts": 0}, proxies={}, s3={"addressing_style": "path"}))
    raw.meta.events.unregister("before-parameter-build.s3", __import__("botocore.handlers").handlers.validate_bucket_name)
    for name in ["ab", "A-b-c", "under_score", "192.168.1.1", "dash-", "dot..dot", "dot.-dash", "dash-.dot", "a" * 64]:
        same((code(raw.create_bucket, Bucket=name) or (None, None))[0], 400)


@test
def a_bucket_tells_region_time_and_location(bucket):
    assert abs(datetime.now(timezone.utc) - {b["Name"]: b["CreationDate"] for b in s3.list_buckets()["Buckets"]}[bucket]) < timedelta(minutes=5)
    same(s3.get_bucket_location(Bucket=bucket)["LocationConstraint"], None)
    same(s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"], "us-east-1")


@test
def bucket_tags_are_kept_and_removed(bucket):
    same(code(s3.get_bucket_tagging, Bucket=bucket), (404, "NoSuchTagSet"))
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    same(s3.get_bucket_tagging(Bucket=bucket)["TagSet"], [{"Key": "a", "Value": "b"}])
    s3.delete_bucket_tagging(Bucket=bucket)
    same(code(s3.get_bucket_tagging, Bucket=bucket), (404, "NoSuchTagSet"))


@test
def what_a_bucket_does_not_have_is_answered_as_s3_does(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    same(s3.get_bucket_acl(Bucket=bucket)["Grants"][0]["Permission"], "FULL_CONTROL")
    same(s3.get_object_acl(Bucket=bucket, Key="k")["Grants"][0]["Permission"], "FULL_CONTROL")
    for call, wanted in [(s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"), (s3.get_bucket_policy, "NoSuchBucketPolicy"),
                         (s3.get_bucket_cors, "NoSuchCORSConfiguration"), (s3.get_bucket_website, "NoSuchWebsiteConfiguration"),
                         (s3.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError"),
                         (s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError"),
                         (s3.get_public_access_block, "NoSuchPublicAccessBlockConfiguration"),
                         (s3.get_bucket_replication, "ReplicationConfigurationNotFoundError"),
                         (s3.get_bucket_ownership_controls, "OwnershipControlsNotFoundError")]:
        same(code(call, Bucket=bucket), (404, wanted))
    same(s3.get_bucket_request_payment(Bucket=bucket)["Payer"], "BucketOwner")
    s3.get_bucket_logging(Bucket=bucket)
    s3.get_bucket_notification_configuration(Bucket=bucket)


# --- writing and reading


@test
def headers_and_metadata_are_kept_and_replaced(bucket):
    expires = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    s3.put_object(Bucket=bucket, Key="k", Body=b"1", ContentType="text/x", CacheControl="no-cache", ContentDisposition="inline",
                  ContentEncoding="gzip", ContentLanguage="de", Expires=expires, Metadata={"one": "1", "two": ""}, StorageClass="STANDARD_IA")
    head = s3.head_object(Bucket=bucket, Key="k")
    same([head[n] for n in ("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "StorageClass")],
         ["text/x", "no-cache", "inline", "gzip", "de", "STANDARD_IA"])
    same(head["Metadata"], {"one": "1", "two": ""})
    same(head["ResponseMetadata"]["HTTPHeaders"]["expires"], "Wed, 02 Jan 2030 03:04:05 GMT")
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", Metadata={"three": "3"})
    head = s3.head_object(Bucket=bucket, Key="k")
    same((head["Metadata"], head["ContentType"], "StorageClass" in head), ({"three": "3"}, "binary/octet-stream", False))


@test
def the_encoding_of_the_transfer_is_not_kept(bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"1", ContentEncoding="aws-chunked")
    s3.put_object(Bucket=bucket, Key="b", Body=b"1", ContentEncoding="gzip, aws-chunked")
    s3.put_object(Bucket=bucket, Key="c", Body=b"1", ContentEncoding="deflate,aws-chunked,gzip")
    same(s3.head_object(Bucket=bucket, Key="c")["ContentEncoding"], "deflate, gzip")
    same("ContentEncoding" in s3.head_object(Bucket=bucket, Key="a"), False)
    same(s3.head_object(Bucket=bucket, Key="b")["ContentEncoding"], "gzip")


@test
def the_etag_is_the_md5_sum(bucket):
    for size in (0, 1, 65536, 65537, 3 * MIB + 1):
        data = bytes(i * 7 % 251 for i in range(min(size, 1000))) * (size // 1000 + 1)
        data = data[:size]
        etag = s3.put_object(Bucket=bucket, Key="k", Body=data)["ETag"]
        same(etag, f'"{hashlib.md5(data).hexdigest()}"')
        answer = s3.get_object(Bucket=bucket, Key="k")
        same((answer["ETag"], answer["Body"].read() == data, answer["ContentLength"]), (etag, True, size))


@test
def a_wrong_md5_leaves_nothing_behind(bucket):
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    same(code(s3.put_object, Bucket=bucket, Key="k", Body=b"1", ContentMD5=wrong), (400, "BadDigest"))
    same(code(s3.put_object, Bucket=bucket, Key="k", Body=b"1", ContentMD5="bm9uZQ=="), (400, "InvalidDigest"))
    same(code(s3.get_object, Bucket=bucket, Key="k"), (404, "NoSuchKey"))


@test
def five_checksums_are_verified_kept_and_told(bucket):
    for algorithm in ("CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"):
        try:
            put = s3.put_object(Bucket=bucket, Key=algorithm, Body=b"123456789", ChecksumAlgorithm=algorithm)
        except Exception as error:
            if "awscrt" in str(error).lower() or "MissingDependency" in type(error).__name__:
                known = {"CRC32C": "4waSgw==", "CRC64NVME": "rosUhgp5mIg="}[algorithm]
                put = s3.put_object(Bucket=bucket, Key=algorithm, Body=b"123456789", **{f"Checksum{algorithm}": known})
            else:
                raise
        told = put[f"Checksum{algorithm}"]
        same(s3.head_object(Bucket=bucket, Key=algorithm, ChecksumMode="ENABLED")[f"Checksum{algorithm}"], told)
        assert f"Checksum{algorithm}" not in s3.head_object(Bucket=bucket, Key=algorithm)
        attributes = s3.get_object_attributes(Bucket=bucket, Key=algorithm, ObjectAttributes=["Checksum", "ETag"])
        # Here alone without its quotes.
        same(attributes["ETag"], put["ETag"].strip('"'))
        attributes = attributes["Checksum"]
        same((attributes[f"Checksum{algorithm}"], attributes["ChecksumType"]), (told, "FULL_OBJECT"))
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    same(code(s3.put_object, Bucket=bucket, Key="bad", Body=b"1", ChecksumSHA256=wrong), (400, "BadDigest"))
    same(code(s3.put_object, Bucket=bucket, Key="bad", Body=b"1", ChecksumSHA256="AAAA"), (400, "InvalidRequest"))
    same(code(s3.head_object, Bucket=bucket, Key="bad"), (404, "404"))


@test
def a_put_over_an_object_put_together_has_its_own_checksum(bucket):
    parts(bucket, "k", [5 * MIB, 10])
    s3.put_object(Bucket=bucket, Key="k", Body=b"short")
    same(body(bucket, "k"), b"short")
    data, *_ = parts(bucket, "k", [5 * MIB, 7])
    assert body(bucket, "k") == data
    assert s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["Body"].read() == data


@test
def storage_classes_are_kept_and_unknown_ones_refused(bucket):
    same(code(s3.put_object, Bucket=bucket, Key="k", Body=b"", StorageClass="NEVER"), (400, "InvalidStorageClass"))
    s3.put_object(Bucket=bucket, Key="k", Body=b"", StorageClass="REDUCED_REDUNDANCY")
    same(s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"], "REDUCED_REDUNDANCY")


@test
def answers_can_have_other_headers(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    answer = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="a/b", ResponseCacheControl="max-age=1", ResponseContentLanguage="fr")
    same((answer["ContentType"], answer["CacheControl"], answer["ContentLanguage"]), ("a/b", "max-age=1", "fr"))


# --- ranges


@test
def ranges_of_every_form(bucket):
    data = bytes(range(256)) * 2000
    for key, content in (("small", data[:100]), ("large", data)):
        s3.put_object(Bucket=bucket, Key=key, Body=content)
        size = len(content)
        for header, start, end in [("0-0", 0, 1), ("4-7", 4, 8), ("4-", 4, size), ("-7", size - 7, size), (f"-{size * 2}", 0, size),
                                   (f"10-{size * 2}", 10, size), (f"{size - 1}-", size - 1, size)]:
            answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={header}")
            same((answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentRange"]), (206, f"bytes {start}-{end - 1}/{size}"))
            assert answer["Body"].read() == content[start:end], header
            head = s3.head_object(Bucket=bucket, Key=key, Range=f"bytes={header}")
            same((head["ResponseMetadata"]["HTTPStatusCode"], head["ContentLength"]), (206, end - start))
    s3.put_object(Bucket=bucket, Key="edge", Body=data[:300000])
    for start in (0, 262143, 262144, 262145, 299999):
        assert body(bucket, "edge", Range=f"bytes={start}-{start + 5}") == data[start:min(start + 6, 300000)], start


@test
def ranges_that_cannot_be_satisfied_are_416_with_the_size(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"12345")
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    for key, header, size in [("k", "bytes=5-", 5), ("k", "bytes=40-50", 5), ("empty", "bytes=0-1", 0), ("k", "bytes=-0", 5)]:
        try:
            s3.get_object(Bucket=bucket, Key=key, Range=header)
            raise AssertionError(f"{header} was satisfied")
        except ClientError as error:
            answer = error.response["ResponseMetadata"]
            same((answer["HTTPStatusCode"], error.response["Error"]["Code"]), (416, "InvalidRange"))
            same(answer["HTTPHeaders"]["content-range"], f"bytes */{size}")


@test
def several_ranges_are_answered_with_the_whole_object(bucket):
    data = bytes(range(256)) * 1000
    s3.put_object(Bucket=bucket, Key="a b", Body=data)
    for call in (s3.get_object, s3.head_object):
        answer = call(Bucket=bucket, Key="a b", Range="bytes=0-1,5-9")
        same((answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentLength"], "ContentRange" in answer), (200, len(data), False))
    same(body(bucket, "a b", Range="bytes=0-1, -4"), data)
    modern = client(config={"signature_version": "s3v4"})
    url = modern.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b"})
    same(fetch(url, headers={"Range": "bytes=0-1,5-9"})[:2], (200, data))
    same(fetch(f"{URL}/{bucket}/a%20b", headers={"Range": "bytes=0-1,5-9"})[0], 403)
    same(code(client(secret="wrong").get_object, Bucket=bucket, Key="a b", Range="bytes=0-1,5-9"), (403, "SignatureDoesNotMatch"))
    same(code(s3.get_object, Bucket=bucket, Key="none", Range="bytes=0-1,5-9"), (404, "NoSuchKey"))


@test
def what_is_no_range_is_no_range(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    for header in ("bytes=5-2", "bytes=abc", "items=0-1", "bytes=", "0-1"):
        for call in (s3.get_object, s3.head_object):
            answer = call(Bucket=bucket, Key="k", Range=header)
            same((answer["ResponseMetadata"]["HTTPStatusCode"], answer["ContentLength"], "ContentRange" in answer), (200, 10, False))
    same(body(bucket, "k", Range="bytes=5-2"), b"0123456789")


@test
def heads_tell_what_reads_do(bucket):
    data, *_ = parts(bucket, "k", [5 * MIB, 100])
    for call in (s3.head_object, s3.get_object):
        part = call(Bucket=bucket, Key="k", PartNumber=2)
        told = (part["ResponseMetadata"]["HTTPStatusCode"], part["PartsCount"], part["ContentLength"], part["ContentRange"])
        same(told, (206, 2, 100, f"bytes {5 * MIB}-{5 * MIB + 99}/{len(data)}"))
        expires = call(Bucket=bucket, Key="k", ResponseExpires=datetime(2030, 1, 2, tzinfo=timezone.utc))
        same(expires["ResponseMetadata"]["HTTPHeaders"]["expires"], "Wed, 02 Jan 2030 00:00:00 GMT")
    same(code(s3.head_object, Bucket=bucket, Key="k", PartNumber=3), (400, "400"))
    for call, name in ((s3.head_object, "416"), (s3.get_object, "InvalidRange")):
        try:
            call(Bucket=bucket, Key="k", Range=f"bytes={len(data)}-")
            raise AssertionError("it was satisfied")
        except ClientError as error:
            answer = error.response["ResponseMetadata"]
            same((answer["HTTPStatusCode"], error.response["Error"]["Code"]), (416, name))
            same(answer["HTTPHeaders"]["content-range"], f"bytes */{len(data)}")
    etag = s3.head_object(Bucket=bucket, Key="k")["ETag"]
    for call in (s3.head_object, s3.get_object):
        try:
            call(Bucket=bucket, Key="k", IfNoneMatch=etag)
            raise AssertionError("it was sent")
        except ClientError as error:
            same((error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["ResponseMetadata"]["HTTPHeaders"]["etag"]), (304, etag))



# --- conditions


@test
def conditional_reads(bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    before, after = datetime.now(timezone.utc) - timedelta(days=1), datetime.now(timezone.utc) + timedelta(days=1)
    for call in (s3.get_object, s3.head_object):
        failed = (412, "PreconditionFailed" if call == s3.get_object else "412")
        call(Bucket=bucket, Key="k", IfMatch=etag)
        call(Bucket=bucket, Key="k", IfMatch="*")
        same(code(call, Bucket=bucket, Key="k", IfMatch='"other"'), failed)
        same(code(call, Bucket=bucket, Key="k", IfNoneMatch=etag), (304, "304"))
        call(Bucket=bucket, Key="k", IfNoneMatch='"other"')
        call(Bucket=bucket, Key="k", IfModifiedSince=before)
        same(code(call, Bucket=bucket, Key="k", IfModifiedSince=after), (304, "304"))
        call(Bucket=bucket, Key="k", IfUnmodifiedSince=after)
        same(code(call, Bucket=bucket, Key="k", IfUnmodifiedSince=before), failed)
        call(Bucket=bucket, Key="k", IfMatch=etag, IfUnmodifiedSince=before)


@test
def conditional_writes(bucket):
    same(code(s3.put_object, Bucket=bucket, Key="k", Body=b"1", IfMatch='"other"'), (404, "NoSuchKey"))
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    same(code(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*"), (412, "PreconditionFailed"))
    same(code(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch=etag), (412, "PreconditionFailed"))
    same(code(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch='"other"'), (412, "PreconditionFailed"))
    same(body(bucket, "k"), b"1")
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfMatch=etag)
    same(body(bucket, "k"), b"2")


@test
def of_many_creates_of_one_key_one_succeeds(bucket):
    outcomes = []

    def create(number):
        own = client()
        outcomes.append((code(own.put_object, Bucket=bucket, Key="k", Body=str(number).encode() * 70000, IfNoneMatch="*"), number))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    won = [number for outcome, number in outcomes if outcome is None]
    same((len(won), {o for o, _ in outcomes if o}), (1, {(412, "PreconditionFailed")}))
    same(body(bucket, "k"), str(won[0]).encode() * 70000)


@test
def conditional_deletes(bucket):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["ETag"]
    same(code(s3.delete_object, Bucket=bucket, Key="k", IfMatch='"other"'), (412, "PreconditionFailed"))
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "ETag": "other"}, {"Key": "absent"}]})
    same(([e["Code"] for e in answer["Errors"]], [d["Key"] for d in answer["Deleted"]]), (["PreconditionFailed"], ["absent"]))


@test
def conditional_copies_over_what_is_there(bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"new")
    there = s3.put_object(Bucket=bucket, Key="b", Body=b"there")["ETag"]
    copy = {"Bucket": bucket, "CopySource": f"{bucket}/a"}
    same(code(s3.copy_object, Key="b", IfNoneMatch="*", **copy), (412, "PreconditionFailed"))
    same(code(s3.copy_object, Key="b", IfNoneMatch=there, **copy), (412, "PreconditionFailed"))
    same(code(s3.copy_object, Key="b", IfMatch='"other"', **copy), (412, "PreconditionFailed"))
    same(code(s3.copy_object, Key="none", IfMatch=there, **copy), (404, "NoSuchKey"))
    same(body(bucket, "b"), b"there")
    s3.copy_object(Key="c", IfNoneMatch="*", **copy)
    s3.copy_object(Key="b", IfMatch=there, **copy)
    same((body(bucket, "b"), body(bucket, "c")), (b"new", b"new"))
    outcomes = [code(client().copy_object, Key="d", IfNoneMatch="*", **copy) for _ in range(3)]
    same(outcomes, [None] + [(412, "PreconditionFailed")] * 2)


@test
def conditions_on_the_source_of_copies_and_copied_parts(bucket):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"1")["ETag"]
    before, after = datetime.now(timezone.utc) - timedelta(days=1), datetime.now(timezone.utc) + timedelta(days=1)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for call, more in ((s3.copy_object, {"Key": "b"}), (s3.upload_part_copy, {"Key": "k", "UploadId": upload, "PartNumber": 1})):
        more = {"Bucket": bucket, "CopySource": f"{bucket}/a", **more}
        for refused in ({"CopySourceIfMatch": '"x"'}, {"CopySourceIfNoneMatch": etag}, {"CopySourceIfModifiedSince": after},
                        {"CopySourceIfUnmodifiedSince": before}):
            same(code(call, **more, **refused), (412, "PreconditionFailed"))
        for taken in ({"CopySourceIfMatch": etag, "CopySourceIfUnmodifiedSince": before}, {"CopySourceIfNoneMatch": '"x"'},
                      {"CopySourceIfModifiedSince": before}, {"CopySourceIfUnmodifiedSince": after}):
            call(**more, **taken)


@test
def metadata_and_headers_have_limits(bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"1", Metadata={"m": "x" * 2047})
    large = {"m": "x" * 2048}
    same(code(s3.put_object, Bucket=bucket, Key="b", Body=b"1", Metadata=large), (400, "MetadataTooLarge"))
    same(code(s3.create_multipart_upload, Bucket=bucket, Key="b", Metadata=large), (400, "MetadataTooLarge"))
    same(code(s3.copy_object, Bucket=bucket, Key="b", CopySource=f"{bucket}/a", MetadataDirective="REPLACE", Metadata=large), (400, "MetadataTooLarge"))
    form = s3.generate_presigned_post(bucket, "b", Fields={"x-amz-meta-m": "x" * 2048}, Conditions=[["starts-with", "$x-amz-meta-m", ""]])
    status, text, _ = post(form, b"content")
    same((status, b"<Code>MetadataTooLarge</Code>" in text), (400, True))
    same(code(s3.put_object, Bucket=bucket, Key="b", Body=b"1", ContentDisposition="x" * 9000), (400, "RequestHeaderSectionTooLarge"))
    same(code(s3.head_object, Bucket=bucket, Key="b"), (404, "404"))
    same(s3.head_object(Bucket=bucket, Key="a")["Metadata"], {"m": "x" * 2047})



# --- copies


@test
def copies_keep_or_replace(bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"x" * 100000, ContentType="text/a", Metadata={"m": "1"}, Tagging="t=1")
    s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a")
    head = s3.head_object(Bucket=bucket, Key="b")
    same((head["ContentType"], head["Metadata"]), ("text/a", {"m": "1"}))
    same(s3.get_object_tagging(Bucket=bucket, Key="b")["TagSet"], [{"Key": "t", "Value": "1"}])
    s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "a"}, MetadataDirective="REPLACE", Metadata={"n": "2"}, ContentType="text/b",
                   TaggingDirective="REPLACE", Tagging="u=2")
    head = s3.head_object(Bucket=bucket, Key="c")
    same((head["ContentType"], head["Metadata"]), ("text/b", {"n": "2"}))
    same(s3.get_object_tagging(Bucket=bucket, Key="c")["TagSet"], [{"Key": "u", "Value": "2"}])
    s3.delete_object(Bucket=bucket, Key="a")
    same(body(bucket, "c"), b"x" * 100000)


@test
def a_copy_onto_itself_needs_a_change(bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    same(code(s3.copy_object, Bucket=bucket, Key="a", CopySource=f"{bucket}/a"), (400, "InvalidRequest"))
    s3.copy_object(Bucket=bucket, Key="a", CopySource=f"{bucket}/a", MetadataDirective="REPLACE", Metadata={"n": "2"})
    same((s3.head_object(Bucket=bucket, Key="a")["Metadata"], body(bucket, "a")), ({"n": "2"}, b"1"))
    s3.copy_object(Bucket=bucket, Key="a", CopySource=f"{bucket}/a", WebsiteRedirectLocation="/there")
    head = s3.head_object(Bucket=bucket, Key="a")
    same((head["WebsiteRedirectLocation"], head["Metadata"]), ("/there", {"n": "2"}))
    s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a")
    same("WebsiteRedirectLocation" in s3.head_object(Bucket=bucket, Key="b"), False)
    for unknown in ({"MetadataDirective": "MOVE"}, {"TaggingDirective": "MOVE"}):
        same(code(s3.copy_object, Bucket=bucket, Key="b", CopySource=f"{bucket}/a", **unknown), (400, "InvalidArgument"))


@test
def copies_of_what_is_not_there_and_conditional_ones(bucket):
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"1")["ETag"]
    same(code(s3.copy_object, Bucket=bucket, Key="b", CopySource=f"{bucket}/none"), (404, "NoSuchKey"))
    same(code(s3.copy_object, Bucket=bucket, Key="b", CopySource=f"{bucket}/a", CopySourceIfMatch='"x"'), (412, "PreconditionFailed"))
    same(code(s3.copy_object, Bucket=bucket, Key="b", CopySource=f"{bucket}/a", CopySourceIfNoneMatch=etag), (412, "PreconditionFailed"))
    s3.copy_object(Bucket=bucket, Key="b", CopySource=f"{bucket}/a", CopySourceIfMatch=etag)
    same(body(bucket, "b"), b"1")


# --- multipart


@test
def an_object_of_parts(bucket):
    data, answer, *_ = parts(bucket, "k", [5 * MIB, 5 * MIB, 100], ContentType="text/a", Metadata={"m": "1"}, Tagging="t=1")
    assert re.fullmatch(r'"[0-9a-f]{32}-3"', answer["ETag"]), answer["ETag"]
    got = s3.get_object(Bucket=bucket, Key="k")
    same((got["ContentType"], got["Metadata"], got["ETag"], got["ContentLength"]), ("text/a", {"m": "1"}, answer["ETag"], len(data)))
    assert got["Body"].read() == data
    same(s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"], [{"Key": "t", "Value": "1"}])
    assert body(bucket, "k", Range=f"bytes={5 * MIB - 3}-{5 * MIB + 3}") == data[5 * MIB - 3:5 * MIB + 4]
    for number, wanted in ((1, data[:5 * MIB]), (3, data[10 * MIB:])):
        part = s3.get_object(Bucket=bucket, Key="k", PartNumber=number)
        same((part["PartsCount"], part["ContentLength"], part["ResponseMetadata"]["HTTPStatusCode"]), (3, len(wanted), 206))
        assert part["Body"].read() == wanted
    same(code(s3.get_object, Bucket=bucket, Key="k", PartNumber=4), (400, "InvalidPart"))


@test
def a_plain_object_is_one_part(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"123")
    part = s3.get_object(Bucket=bucket, Key="k", PartNumber=1)
    same((part["Body"].read(), "PartsCount" in part), (b"123", False))
    same(code(s3.get_object, Bucket=bucket, Key="k", PartNumber=2), (400, "InvalidPart"))


@test
def a_completion_can_be_repeated_and_its_object_stays(bucket):
    data, answer, upload, done = parts(bucket, "k", [5 * MIB, 9])
    again = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": done})
    same(again["ETag"], answer["ETag"])
    assert body(bucket, "k") == data


@test
def wrong_completions_are_refused_and_the_upload_goes_on(bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    etags = [s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=n, Body=b"x" * size)["ETag"] for n, size in ((1, 5 * MIB), (3, 10), (7, 5))]
    complete = lambda *chosen: code(s3.complete_multipart_upload, Bucket=bucket, Key="k", UploadId=upload,
                                    MultipartUpload={"Parts": [{"PartNumber": n, "ETag": e} for n, e in chosen]})
    same(complete((1, etags[0]), (2, etags[1])), (400, "InvalidPart"))
    same(complete((1, '"ffffffffffffffffffffffffffffffff"')), (400, "InvalidPart"))
    same(complete((3, etags[1]), (1, etags[0])), (400, "InvalidPartOrder"))
    same(complete((1, etags[0]), (3, etags[1]), (7, etags[2])), (400, "EntityTooSmall"))
    same(code(s3.get_object, Bucket=bucket, Key="k"), (404, "NoSuchKey"))
    same(complete((1, etags[0]), (7, etags[2])), None)
    same(s3.head_object(Bucket=bucket, Key="k")["ContentLength"], 5 * MIB + 5)


@test
def part_numbers_go_from_1_to_10000(bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for number in (0, 10001, -1):
        same(code(s3.upload_part, Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=b"1")[0], 400)
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=10000, Body=b"1")


@test
def parts_are_verified(bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    same(code(s3.upload_part, Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"1", ContentMD5=wrong), (400, "BadDigest"))
    same("Parts" in s3.list_parts(Bucket=bucket, Key="k", UploadId=upload), False)


@test
def unknown_uploads_are_404(bucket):
    for call, more in [(s3.upload_part, {"PartNumber": 1, "Body": b"1"}), (s3.list_parts, {}), (s3.abort_multipart_upload, {}),
                       (s3.complete_multipart_upload, {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": "x"}]}})]:
        same(code(call, Bucket=bucket, Key="k", UploadId="none", **more), (404, "NoSuchUpload"))


@test
def aborted_uploads_are_gone(bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x" * 100000)
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
    same(code(s3.list_parts, Bucket=bucket, Key="k", UploadId=upload), (404, "NoSuchUpload"))
    same("Uploads" in s3.list_multipart_uploads(Bucket=bucket), False)
    s3.delete_bucket(Bucket=bucket)


@test
def parts_are_listed_in_order_and_pages(bucket):
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    etags = {n: s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=n, Body=b"x" * n)["ETag"] for n in (3, 1, 11, 2)}
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload)
    same([(p["PartNumber"], p["ETag"], p["Size"]) for p in listed["Parts"]], [(n, etags[n], n) for n in (1, 2, 3, 11)])
    first = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, MaxParts=3)
    same((len(first["Parts"]), first["IsTruncated"], first["NextPartNumberMarker"]), (3, True, 3))
    rest = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, PartNumberMarker=3)
    same([p["PartNumber"] for p in rest["Parts"]], [11])


@test
def uploads_are_listed_with_prefix_delimiter_and_pages(bucket):
    for key in ("a/1", "a/2", "b", "c", "c"):
        s3.create_multipart_upload(Bucket=bucket, Key=key)
    listed = s3.list_multipart_uploads(Bucket=bucket)
    same([u["Key"] for u in listed["Uploads"]], ["a/1", "a/2", "b", "c", "c"])
    listed = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    same(([u["Key"] for u in listed["Uploads"]], [p["Prefix"] for p in listed["CommonPrefixes"]]), (["b", "c", "c"], ["a/"]))
    same([u["Key"] for u in s3.list_multipart_uploads(Bucket=bucket, Prefix="a/")["Uploads"]], ["a/1", "a/2"])
    found = [u["Key"] for p in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}) for u in p["Uploads"]]
    same(found, ["a/1", "a/2", "b", "c", "c"])


@test
def parts_copied_from_objects(bucket):
    data = bytes(range(256)) * 24 * 1024
    s3.put_object(Bucket=bucket, Key="a b?c", Body=data)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    copied = []
    for number, span in ((1, f"bytes=0-{5 * MIB - 1}"), (2, f"bytes={5 * MIB}-{6 * MIB - 1}")):
        answer = s3.upload_part_copy(Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, CopySource={"Bucket": bucket, "Key": "a b?c"}, CopySourceRange=span)
        copied.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": copied})
    assert body(bucket, "k") == data[:6 * MIB]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for span in ("bytes=0-6291456000", "0-2", "bytes=0", "bytes=hello-world", "bytes=0-bar", "bytes=-5", "bytes=0-2,3-5"):
        found = code(s3.upload_part_copy, Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, CopySource={"Bucket": bucket, "Key": "a b?c"}, CopySourceRange=span)
        same(found, (416, "InvalidRange") if span.endswith("6291456000") else (400, "InvalidArgument"))


@test
def conditional_completion(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"there")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"new")["ETag"]
    done = {"Bucket": bucket, "Key": "k", "UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": etag}]}}
    same(code(s3.complete_multipart_upload, IfNoneMatch="*", **done), (412, "PreconditionFailed"))
    same(code(s3.complete_multipart_upload, IfMatch='"other"', **done), (412, "PreconditionFailed"))
    same(body(bucket, "k"), b"there")
    s3.complete_multipart_upload(IfMatch=s3.head_object(Bucket=bucket, Key="k")["ETag"], **done)
    same(body(bucket, "k"), b"new")


@test
def checksums_of_parts_and_of_the_whole(bucket):
    first, second = b"a" * (5 * MIB), b"b" * 1000
    for algorithm, kind, sum_of in (("SHA256", None, lambda d: hashlib.sha256(d).digest()), ("SHA1", None, lambda d: hashlib.sha1(d).digest()),
                                    ("CRC32", "FULL_OBJECT", lambda d: zlib.crc32(d).to_bytes(4, "big"))):
        more = {"ChecksumType": kind} if kind else {}
        upload = s3.create_multipart_upload(Bucket=bucket, Key=algorithm, ChecksumAlgorithm=algorithm, **more)["UploadId"]
        done = []
        for number, part in ((1, first), (2, second)):
            answer = s3.upload_part(Bucket=bucket, Key=algorithm, UploadId=upload, PartNumber=number, Body=part, ChecksumAlgorithm=algorithm)
            same(answer[f"Checksum{algorithm}"], base64.b64encode(sum_of(part)).decode())
            done.append({"PartNumber": number, "ETag": answer["ETag"], f"Checksum{algorithm}": answer[f"Checksum{algorithm}"]})
        told = s3.complete_multipart_upload(Bucket=bucket, Key=algorithm, UploadId=upload, MultipartUpload={"Parts": done})[f"Checksum{algorithm}"]
        if kind:
            same(told, base64.b64encode(sum_of(first + second)).decode())
        else:
            same(told, base64.b64encode(sum_of(sum_of(first) + sum_of(second))).decode() + "-2")
        same(s3.head_object(Bucket=bucket, Key=algorithm, ChecksumMode="ENABLED")[f"Checksum{algorithm}"], told)
        attributes = s3.get_object_attributes(Bucket=bucket, Key=algorithm, ObjectAttributes=["ObjectParts", "Checksum", "ETag", "ObjectSize", "StorageClass"])
        same((attributes["ObjectParts"]["TotalPartsCount"], attributes["ObjectSize"], attributes["StorageClass"]), (2, 5 * MIB + 1000, "STANDARD"))
        same([p["Size"] for p in attributes["ObjectParts"]["Parts"]], [5 * MIB, 1000])
        part = s3.get_object(Bucket=bucket, Key=algorithm, PartNumber=2, ChecksumMode="ENABLED")
        same((part["ChecksumType"], part[f"Checksum{algorithm}"]), (kind or "COMPOSITE", done[1][f"Checksum{algorithm}"]))
        assert body(bucket, algorithm, ChecksumMode="ENABLED") == first + second


def crc(data, polynomial, width):
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (polynomial if byte & 1 else 0)
        table.append(byte)
    register = (1 << width) - 1
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 255]
    return base64.b64encode((register ^ (1 << width) - 1).to_bytes(width // 8, "big")).decode()


def crc32c(data):
    return crc(data, 0x82F63B78, 32)


def crc64nvme(data):
    return crc(data, 0x9A6C9329AC4BC9B5, 64)


@test
def crc32c_and_crc64nvme_of_parts_are_verified_kept_and_told(bucket):
    same((crc32c(b"123456789"), crc64nvme(b"123456789")), ("4waSgw==", "rosUhgp5mIg="))
    data = b"part" * 1000
    for algorithm, kind, sum_of in (("CRC32C", "COMPOSITE", crc32c), ("CRC32C", "FULL_OBJECT", crc32c), ("CRC64NVME", "FULL_OBJECT", crc64nvme)):
        field = f"Checksum{algorithm}"
        upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind)["UploadId"]
        place = {"Bucket": bucket, "Key": "k", "UploadId": upload}
        same(code(s3.upload_part, PartNumber=1, Body=data, **{field: sum_of(b"other")}, **place), (400, "BadDigest"))
        same("Parts" in s3.list_parts(**place), False)
        answer = s3.upload_part(PartNumber=1, Body=data, **{field: sum_of(data)}, **place)
        same(answer[field], sum_of(data))
        done = {"Parts": [{"PartNumber": 1, "ETag": answer["ETag"], field: answer[field]}]}
        wrong = {"Parts": [{"PartNumber": 1, "ETag": answer["ETag"], field: sum_of(b"other")}]}
        same(code(s3.complete_multipart_upload, MultipartUpload=wrong, **place), (400, "InvalidPart"))
        same(code(s3.complete_multipart_upload, MultipartUpload=done, MpuObjectSize=3999, **place), (400, "InvalidRequest"))
        if kind == "FULL_OBJECT":
            same(code(s3.complete_multipart_upload, MultipartUpload=done, **{field: sum_of(b"other")}, **place), (400, "BadDigest"))
        told = s3.complete_multipart_upload(MultipartUpload=done, MpuObjectSize=4000, **place)[field]
        same(told, sum_of(data) if kind == "FULL_OBJECT" else sum_of(base64.b64decode(sum_of(data))) + "-1")
        head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        same((head[field], head["ChecksumType"]), (told, kind))


@test
def an_upload_without_checksums_takes_parts_with_them_and_one_of_the_whole(bucket):
    own = client(config={"request_checksum_calculation": "when_required"})
    data, crc32 = b"x" * 1000, lambda data: base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    upload = own.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    place = {"Bucket": bucket, "Key": "k", "UploadId": upload}
    part = own.upload_part(PartNumber=1, Body=data, ChecksumCRC32=crc32(data), **place)
    done = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]}
    same(code(own.complete_multipart_upload, MultipartUpload=done, ChecksumCRC32=crc32(b"other"), **place), (400, "BadDigest"))
    same(code(own.head_object, Bucket=bucket, Key="k"), (404, "404"))
    own.complete_multipart_upload(MultipartUpload=done, ChecksumCRC32=crc32(data), **place)
    same(body(bucket, "k"), data)


def saying(operation, **headers):
    """A client whose requests of one kind say something else of their body, and are signed so."""
    own = client()

    def say(request, **_):
        for name in [name for name in request.headers if name.lower().startswith(("x-amz-checksum", "content-md5"))]:
            del request.headers[name]
        for name, value in headers.items():
            request.headers[name.replace("_", "-")] = value

    own.meta.events.register(f"before-sign.s3.{operation}", say)
    return own


@test
def documents_are_compared_with_what_is_said_of_them(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    md5 = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    crc32 = base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode()
    for operation, call, more in (("DeleteObjects", "delete_objects", {"Delete": {"Objects": [{"Key": "k"}]}}),
                                  ("PutObjectTagging", "put_object_tagging", {"Key": "k", "Tagging": tags}),
                                  ("PutBucketTagging", "put_bucket_tagging", {"Tagging": tags})):
        for said in ({"Content_MD5": md5}, {"x_amz_checksum_crc32": crc32}):
            same((operation, code(getattr(saying(operation, **said), call), Bucket=bucket, **more)), (operation, (400, "BadDigest")))
    same(body(bucket, "k"), b"1")
    same(s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"], [])
    for call, more in ((s3.put_object_tagging, {"Key": "k"}), (s3.put_bucket_tagging, {})):
        call(Bucket=bucket, Tagging=tags, ChecksumAlgorithm="SHA256", **more)
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]}, ChecksumAlgorithm="SHA1")
    same(code(s3.head_object, Bucket=bucket, Key="k"), (404, "404"))


@test
def a_version_that_is_not_there_is_deleted_already(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    same(s3.delete_object(Bucket=bucket, Key="k", VersionId="other")["ResponseMetadata"]["HTTPStatusCode"], 204)
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": "other"}]})
    same((len(answer["Deleted"]), "Errors" in answer), (1, False))
    same(body(bucket, "k"), b"1")
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    same(code(s3.head_object, Bucket=bucket, Key="k"), (404, "404"))



# --- deleting


@test
def many_are_deleted_at_once_and_told_or_not(bucket):
    for key in ("a", "b", "c"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"1")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "none"}]})
    same(sorted(d["Key"] for d in answer["Deleted"]), ["a", "none"])
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    same("Deleted" in answer, False)
    same([o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]], ["c"])
    many = [{"Key": str(n)} for n in range(1001)]
    same(code(s3.delete_objects, Bucket=bucket, Delete={"Objects": many}), (400, "MalformedXML"))
    same(len(s3.delete_objects(Bucket=bucket, Delete={"Objects": many[:1000]})["Deleted"]), 1000)


@test
def one_bad_key_does_not_keep_the_good_ones(bucket):
    s3.put_object(Bucket=bucket, Key="a", Body=b"1")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k" * 1025}, {"Key": "a"}]})
    same(([d["Key"] for d in answer["Deleted"]], len(answer["Errors"])), (["a"], 1))


# --- lists


def fill(bucket, keys):
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())


@test
def both_lists_tell_the_same(bucket):
    keys = ["asdf+b", "foo%2/x", "foo+1/bar", "foo/bar/xyz", "quux ab/thud", "z\u00fc"]
    fill(bucket, keys)
    for delimiter in ("", "/", "a"):
        one = s3.list_objects(Bucket=bucket, Delimiter=delimiter)
        two = s3.list_objects_v2(Bucket=bucket, Delimiter=delimiter)
        pick = lambda page: ([(o["Key"], o["ETag"], o["Size"], o["StorageClass"], o["LastModified"]) for o in page.get("Contents", [])],
                             [p["Prefix"] for p in page.get("CommonPrefixes", [])])
        same(pick(one), pick(two))
    one = s3.list_objects(Bucket=bucket)
    same([o["Key"] for o in one["Contents"]], keys)
    same(one["Contents"][0]["Owner"], {"DisplayName": "lookoutd", "ID": "lookoutd"})
    same("Owner" in s3.list_objects_v2(Bucket=bucket)["Contents"][0], False)
    assert s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]
    same(one["Contents"][0]["LastModified"], s3.head_object(Bucket=bucket, Key=keys[0])["LastModified"])


@test
def list_v1_pages_by_marker(bucket):
    fill(bucket, ["bar", "baz", "foo", "quxx", "d/1", "d/2", "e/1"])
    page = s3.list_objects(Bucket=bucket, MaxKeys=2, Marker="bar")
    same(([o["Key"] for o in page["Contents"]], page["IsTruncated"], page["Marker"], page["MaxKeys"]), (["baz", "d/1"], True, "bar", 2))
    told, marker = [], ""
    while True:
        page = s3.list_objects(Bucket=bucket, MaxKeys=1, Delimiter="/", Marker=marker)
        told += [o["Key"] for o in page.get("Contents", [])] + [p["Prefix"] for p in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            break
        marker = page["NextMarker"]
    same(told, ["bar", "baz", "d/", "e/", "foo", "quxx"])
    same("Contents" in s3.list_objects(Bucket=bucket, Marker="zzz"), False)
    same("Contents" in s3.list_objects(Bucket=bucket, MaxKeys=0), False)
    same(len(s3.list_objects(Bucket=bucket, Marker="")["Contents"]), 7)


@test
def list_v2_pages_by_token(bucket):
    fill(bucket, ["bar", "baz", "foo", "quxx"])
    first = s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    second = s3.list_objects_v2(Bucket=bucket, ContinuationToken=first["NextContinuationToken"])
    same((second["ContinuationToken"], [o["Key"] for o in second["Contents"]], second["KeyCount"]), (first["NextContinuationToken"], ["baz", "foo", "quxx"], 3))
    empty = s3.list_objects_v2(Bucket=bucket, ContinuationToken="")
    same((empty["ContinuationToken"], empty["KeyCount"], empty["IsTruncated"]), ("", 4, False))
    after = s3.list_objects_v2(Bucket=bucket, StartAfter="blah")
    same((after["StartAfter"], [o["Key"] for o in after["Contents"]]), ("blah", ["foo", "quxx"]))
    both = s3.list_objects_v2(Bucket=bucket, StartAfter="bar", MaxKeys=1)
    rest = s3.list_objects_v2(Bucket=bucket, StartAfter="bar", ContinuationToken=both["NextContinuationToken"])
    same([o["Key"] for o in rest["Contents"]], ["foo", "quxx"])
    same(code(s3.list_objects_v2, Bucket=bucket, ContinuationToken="not a token"), (400, "InvalidArgument"))


@test
def prefixes_and_delimiters_of_any_kind(bucket):
    fill(bucket, ["b/a/c", "b/a/g", "b/a/r", "g", "b a", "b%a", "b.a", "b_a", "b\na"])
    for prefix, delimiter, keys, prefixes in [("b/", "/", [], ["b/a/"]), ("b", "a", [], ["b\na", "b a", "b%a", "b.a", "b/a", "b_a"]), ("", "%", None, ["b%"]),
                                              ("", " ", None, ["b "]), ("", ".", None, ["b."]), ("", "\n", None, ["b\n"]), ("x", "/", [], []),
                                              ("", "zz", None, []), ("\x0a", "", [], [])]:
        page = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter=delimiter)
        same([p["Prefix"] for p in page.get("CommonPrefixes", [])], prefixes)
        if keys is not None:
            same([o["Key"] for o in page.get("Contents", [])], keys)
        same(page["Prefix"], prefix)


@test
def bad_page_sizes_are_refused(bucket):
    same(code(s3.list_objects_v2, Bucket=bucket, MaxKeys=-1), (400, "InvalidArgument"))


@test
def versions_and_uploads_are_listed_in_pages_with_delimiters(bucket):
    keys = ["a/1", "a/2", "b", "c/1", "d+e f", "\u00fc"]
    fill(bucket, keys)
    found, common, more = [], [], {}
    while True:
        page = s3.list_object_versions(Bucket=bucket, Delimiter="/", MaxKeys=1, **more)
        found += [v["Key"] for v in page.get("Versions", [])]
        common += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            break
        more = {"KeyMarker": page["NextKeyMarker"]}
        if "NextVersionIdMarker" in page:
            more["VersionIdMarker"] = page["NextVersionIdMarker"]
    same((found, common), (["b", "d+e f", "\u00fc"], ["a/", "c/"]))
    same([v["Key"] for v in s3.list_object_versions(Bucket=bucket, Prefix="a/")["Versions"]], ["a/1", "a/2"])
    for key in keys:
        s3.create_multipart_upload(Bucket=bucket, Key=key)
    found, common, more = [], [], {}
    while True:
        page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", MaxUploads=1, **more)
        found += [u["Key"] for u in page.get("Uploads", [])]
        common += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
        if not page["IsTruncated"]:
            break
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}
    same((found, common), (["b", "d+e f", "\u00fc"], ["a/", "c/"]))


@test
def names_are_encoded_where_that_is_asked_for(bucket):
    fill(bucket, ["a b/x", "d+e f", "\u00fc&"])
    modern = client(config={"signature_version": "s3v4"})
    for operation, call in (("ListObjects", "list_objects"), ("ListObjectsV2", "list_objects_v2"), ("ListObjectVersions", "list_object_versions")):
        # boto3 asks for it by itself.
        modern.meta.events.unregister(f"before-parameter-build.s3.{operation}", set_list_objects_encoding_type_url)
        for encoding, wanted in (({}, ["<Key>d+e f</Key>", "<Prefix>a b/</Prefix>"]), ({"EncodingType": "url"}, ["d%2Be", "%C3%BC%26", "<EncodingType>url<"])):
            url = modern.generate_presigned_url(call, Params={"Bucket": bucket, "Delimiter": "/", **encoding})
            same("encoding-type" in url, bool(encoding))
            text = fetch(url)[1].decode()
            for some in wanted:
                assert some in text, (call, some, text)


@test
def versions_of_an_unversioned_bucket_are_null(bucket):
    fill(bucket, ["a", "b"])
    listed = s3.list_object_versions(Bucket=bucket)
    same([(v["Key"], v["VersionId"], v["IsLatest"]) for v in listed["Versions"]], [("a", "null", True), ("b", "null", True)])
    same(body(bucket, "a", VersionId="null"), b"a")
    same(code(s3.get_object, Bucket=bucket, Key="a", VersionId="other")[1], "NoSuchVersion")
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in listed["Versions"]]})
    s3.delete_bucket(Bucket=bucket)


# --- tags


@test
def tags_are_kept_counted_and_limited(bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"1", Tagging="foo=bar&bar=")
    same(s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"], [{"Key": "bar", "Value": ""}, {"Key": "foo", "Value": "bar"}])
    same(s3.head_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"], "2")
    same(s3.get_object(Bucket=bucket, Key="k")["TagCount"], 2)
    tags = lambda count, key=10, value=10: {"TagSet": [{"Key": str(n).ljust(key, "k"), "Value": "v" * value} for n in range(count)]}
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tags(10, 128, 256))
    same(len(s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]), 10)
    for bad in (tags(11), tags(1, 129), tags(1, 10, 257), {"TagSet": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}):
        same(code(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=bad), (400, "InvalidTag"))
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    same(s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"], [])
    same(code(s3.put_object_tagging, Bucket=bucket, Key="none", Tagging=tags(1)), (404, "NoSuchKey"))


# --- signatures


def fetch(url, method="GET", data=None, headers=None):
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@test
def strangers_are_refused_by_name(bucket):
    same(code(client(key="AKIDOTHER").list_buckets), (403, "InvalidAccessKeyId"))
    same(code(client(secret="wrong").list_buckets), (403, "SignatureDoesNotMatch"))
    status, text, _ = fetch(f"{URL}/{bucket}")
    same((status, b"<Code>AccessDenied</Code>" in text), (403, True))
    status, text, _ = fetch(f"{URL}/{bucket}", headers={"Authorization": "AWS4-HMAC-SHA256 nonsense"})
    same((status, b"<Code>AuthorizationHeaderMalformed</Code>" in text, b"<Region>" in text), (400, True, True))


@test
def every_answer_has_a_request_id(bucket):
    assert s3.list_objects_v2(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"]
    try:
        s3.get_object(Bucket=bucket, Key="none")
    except ClientError as error:
        answer = error.response["ResponseMetadata"]
        same(answer["HTTPHeaders"]["x-amz-request-id"], answer["RequestId"])
    status, text, headers = fetch(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "none"}))
    assert f"<RequestId>{headers['x-amz-request-id']}</RequestId>".encode() in text, text


@test
def presigned_requests_read_and_write(bucket):
    modern = client(config={"signature_version": "s3v4"})
    status, _, _ = fetch(modern.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"}), "PUT", b"hello")
    same(status, 200)
    same(fetch(modern.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))[1], b"hello")
    status, _, headers = fetch(modern.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k", "ResponseContentType": "a/b"}))
    same((status, headers["content-type"]), (200, "a/b"))
    for seconds in (0, 604801, -7):
        url = modern.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=60)
        url = re.sub(r"X-Amz-Expires=\d+", f"X-Amz-Expires={seconds}", url)
        same(fetch(url)[0], 403)
    url = modern.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=1)
    time.sleep(2.5)
    same(fetch(url)[0], 403)


def post(form, content, **more):
    text = b""
    for name, value in {**form["fields"], **more, "file": content}.items():
        value = value if isinstance(value, bytes) else value.encode()
        extra = '; filename="f.txt"' if name == "file" else ""
        text += f'--xx\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + value + b"\r\n"
    return fetch(form["url"], "POST", text + b"--xx--\r\n", {"Content-Type": "multipart/form-data; boundary=xx"})


@test
def forms_are_compared_with_what_their_fields_say(bucket):
    def form(**fields):
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        return s3.generate_presigned_post(bucket, "k", Fields=fields, Conditions=[{name: value} for name, value in fields.items()])

    md5 = lambda data: base64.b64encode(hashlib.md5(data).digest()).decode()
    status, text, _ = post(form(Content_MD5=md5(b"other")), b"content")
    same((status, b"<Code>BadDigest</Code>" in text), (400, True))
    status, text, _ = post(form(Content_MD5="nonsense"), b"content")
    same((status, b"<Code>InvalidDigest</Code>" in text), (400, True))
    same(code(s3.head_object, Bucket=bucket, Key="k"), (404, "404"))
    same(post(form(Content_MD5=md5(b"content")), b"content")[0], 204)
    status, text, _ = post(form(If_None_Match="*"), b"later")
    same((status, b"<Code>PreconditionFailed</Code>" in text), (412, True))
    same(body(bucket, "k"), b"content")


@test
def forms_upload(bucket):
    for signature in ("s3", "s3v4"):
        form = client(config={"signature_version": signature}).generate_presigned_post(
            bucket, f"form-{signature}", Fields={"acl": "private", "Content-Type": "text/plain", "success_action_status": "201", "x-amz-meta-a": "1"},
            Conditions=[{"acl": "private"}, {"Content-Type": "text/plain"}, {"success_action_status": "201"}, {"x-amz-meta-a": "1"}, ["content-length-range", 1, 100]])

        def post(content, fields=form["fields"]):
            text = b""
            for name, value in {**fields, "file": content}.items():
                value = value if isinstance(value, bytes) else value.encode()
                extra = '; filename="f.txt"' if name == "file" else ""
                text += f'--xx\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + value + b"\r\n"
            return fetch(form["url"], "POST", text + b"--xx--\r\n", {"Content-Type": "multipart/form-data; boundary=xx"})

        same(post(b"content")[0], 201)
        got = s3.get_object(Bucket=bucket, Key=f"form-{signature}")
        same((got["Body"].read(), got["ContentType"], got["Metadata"]), (b"content", "text/plain", {"a": "1"}))
        same(post(b"x" * 101)[0], 400)
        name = "signature" if signature == "s3" else "x-amz-signature"
        same(post(b"content", {**form["fields"], name: "0" * 64})[0], 403)


@test
def the_key_of_a_form_may_name_its_file(bucket):
    form = client(config={"signature_version": "s3v4"}).generate_presigned_post(bucket, "in/${filename}")
    for name in ("f \u00fc.csv", "C:\\up\\f \u00fc.csv"):
        text = b""
        for field, value in {**form["fields"], "file": b"content"}.items():
            extra = f'; filename="{name}"' if field == "file" else ""
            text += f'--xx\r\nContent-Disposition: form-data; name="{field}"{extra}\r\n\r\n'.encode()
            text += (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
        same(fetch(form["url"], "POST", text + b"--xx--\r\n", {"Content-Type": "multipart/form-data; boundary=xx"})[0], 204)
        same(body(bucket, "in/f \u00fc.csv"), b"content")
        s3.delete_object(Bucket=bucket, Key="in/f \u00fc.csv")


@test
def buckets_can_be_names_of_hosts(bucket):
    host = urllib.parse.urlparse(URL)
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    virtual = boto3.client("s3", endpoint_url=f"{host.scheme}://localhost:{host.port}", aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1",
                           config=Config(retries={"max_attempts": 0}, proxies={}, s3={"addressing_style": "virtual"}, signature_version="s3v4"))
    url = virtual.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    named = urllib.parse.urlparse(url)
    assert named.hostname.startswith(bucket), url
    status, text, _ = fetch(url.replace(f"{named.scheme}://{named.netloc}", f"{host.scheme}://{host.netloc}"), headers={"Host": named.netloc})
    same((status, text), (200, b"1"))


@test
def requests_to_names_of_hosts_are_signed_in_headers_and_write_and_list(bucket):
    port = urllib.parse.urlsplit(URL).port
    own = boto3.client("s3", endpoint_url=f"http://localhost:{port}", aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1",
                       config=Config(retries={"total_max_attempts": 1}, proxies={}, s3={"addressing_style": "virtual"}))

    def send(request, **_):
        # Not every machine knows the name; the signature is over it in any case.
        host = urllib.parse.urlsplit(request.url).netloc
        assert host == f"{bucket}.localhost:{port}", host
        request.headers["Host"] = host
        request.url = request.url.replace(host, urllib.parse.urlsplit(URL).netloc, 1)

    own.meta.events.register("before-send.s3", send)
    own.put_object(Bucket=bucket, Key="a b/c", Body=b"1" * 100000)
    same(own.get_object(Bucket=bucket, Key="a b/c")["Body"].read(), b"1" * 100000)
    same([o["Key"] for o in own.list_objects_v2(Bucket=bucket, Prefix="a b/")["Contents"]], ["a b/c"])
    own.copy_object(Bucket=bucket, Key="d", CopySource={"Bucket": bucket, "Key": "a b/c"})
    own.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a b/c"}]})
    same([o["Key"] for o in own.list_objects(Bucket=bucket)["Contents"]], ["d"])


class InChunks(S3SigV4Auth):
    kind = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    def payload(self, request):
        return self.kind


def in_chunks(bucket, data, trailer=None, signed=False, spoil=False):
    """A PUT of `k` as SDKs send bodies whose length or checksum they do not know beforehand."""
    headers = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(len(data))}
    if trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    request = AWSRequest("PUT", f"{URL}/{bucket}/k", headers=headers, data=b"")
    auth = InChunks(Credentials(KEY, SECRET), "s3", "us-east-1")
    if signed:
        auth.kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    auth.add_auth(request)
    last = request.headers["Authorization"].split("Signature=")[1]
    text = b""
    for start in range(0, len(data) + 65536, 65536):
        chunk = data[start:start + 65536]
        extra = ""
        if signed:
            hashed = [hashlib.sha256(some).hexdigest() for some in (b"", chunk)]
            parts = ["AWS4-HMAC-SHA256-PAYLOAD", request.context["timestamp"], auth.credential_scope(request), last, *hashed]
            last = auth.signature("\n".join(parts), request)
            extra = f";chunk-signature={last}"
        text += f"{len(chunk):x}{extra}\r\n".encode() + (chunk[::-1] if spoil else chunk) + (b"\r\n" if chunk or not trailer else b"")
    if trailer:
        text += f"x-amz-checksum-crc32:{trailer}\r\n\r\n".encode()
    return fetch(request.url, "PUT", text, dict(request.headers))


@test
def bodies_in_chunks_are_held_to_their_trailers_and_signatures(bucket):
    data = bytes(range(256)) * 700
    sum_of = lambda data: base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    for more in ({"trailer": sum_of(b"other")}, {"trailer": "nonsense"}, {"signed": True, "spoil": True}):
        status, text, _ = in_chunks(bucket, data, **more)
        assert status in (400, 403), (more, status, text)
        same(code(s3.head_object, Bucket=bucket, Key="k"), (404, "404"))
    same(in_chunks(bucket, data, signed=True)[0], 200)
    same(body(bucket, "k"), data)
    same(in_chunks(bucket, data[1:], trailer=sum_of(data[1:]))[0], 200)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    same((got["Body"].read(), got["ChecksumCRC32"], "ContentEncoding" in got), (data[1:], sum_of(data[1:]), False))


@test
def a_body_may_be_sent_after_100_continue_and_in_chunks(bucket):
    upload = boto3.s3.transfer.TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
    from io import BytesIO
    data = bytes(range(256)) * 4096 * 9
    s3.put_object(Bucket=bucket, Key="k", Body=b"earlier")
    s3.upload_fileobj(BytesIO(data), bucket, "k", Config=upload)
    read = BytesIO()
    s3.download_fileobj(bucket, "k", read, Config=upload)
    assert read.getvalue() == data


@test
def readers_see_one_version_while_it_is_replaced(bucket):
    versions = [bytes([n]) * (2 * MIB) for n in (65, 66)]
    s3.put_object(Bucket=bucket, Key="k", Body=versions[0])
    stop, torn = threading.Event(), []

    def read():
        own = client()
        while not stop.is_set():
            data = own.get_object(Bucket=bucket, Key="k")["Body"].read()
            if data not in versions:
                torn.append(len(data))

    threads = [threading.Thread(target=read) for _ in range(2)]
    [t.start() for t in threads]
    for n in range(10):
        s3.put_object(Bucket=bucket, Key="k", Body=versions[n % 2])
    stop.set()
    [t.join() for t in threads]
    same(torn, [])


@test
def select_reads_json_lines_and_csv(bucket):
    lines = [{"timestamp": f"2026-01-01T00:0{n}:00", "prediction": n % 2, "score": n / 10} for n in range(6)]
    s3.put_object(Bucket=bucket, Key="r.jsonl", Body="".join(json.dumps(line) + "\n" for line in lines).encode())
    s3.put_object(Bucket=bucket, Key="t.csv", Body=b"a,b\n1,x\n2,y\n3,z\n")

    def select(key, expression, kind, out={"JSON": {}}):
        answer = s3.select_object_content(Bucket=bucket, Key=key, Expression=expression, ExpressionType="SQL", InputSerialization=kind, OutputSerialization=out)
        return b"".join(event["Records"]["Payload"] for event in answer["Payload"] if "Records" in event).decode()

    rows = lambda text: [json.loads(line) for line in text.splitlines()]
    kind = {"JSON": {"Type": "LINES"}}
    same(rows(select("r.jsonl", "SELECT * FROM s3object s", kind)), lines)
    same(rows(select("r.jsonl", "select s.timestamp, s.score from S3Object s where s.prediction = 1 limit 2", kind)),
         [{"timestamp": line["timestamp"], "score": line["score"]} for line in lines if line["prediction"]][:2])
    table = {"CSV": {"FileHeaderInfo": "USE"}}
    same(select("t.csv", "SELECT * FROM s3object s WHERE s.b = 'y'", table, {"CSV": {}}), "2,y\n")
    same(rows(select("t.csv", "SELECT s.a FROM s3object s WHERE CAST(s.a AS INT) >= 2", table)), [{"a": "2"}, {"a": "3"}])
    same(code(s3.select_object_content, Bucket=bucket, Key="t.csv", Expression="SELECT a FROM x JOIN y", ExpressionType="SQL", InputSerialization=table, OutputSerialization={"CSV": {}})[0], 400)


wanted = sys.argv[4:]
chosen = [one for one in tests if not wanted or one.__name__ in wanted]
failed = []
for number, one in enumerate(chosen):
    bucket = f"suite-{number}-{int(time.time() * 1000) % 10**9}"
    try:
        s3.create_bucket(Bucket=bucket)
        one(bucket)
    except Exception as error:
        failed.append(one.__name__)
        place = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in place if frame.filename == __file__]
        print(f"FAILED {one.__name__}, line {lines[-1] if lines else '?'}: {type(error).__name__}: {str(error)[:400]}")
print(f"{len(chosen)} behaviours, {len(failed)} not as they should be")
sys.exit(1 if failed else 0)
