//! Multipart uploads.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::copies::source_of;
use super::lists::Names;
use super::writes::{self, receive};
use super::{Store, answer, class, etag, no_customer_key, objects, owner, tags, time};
use crate::store::bodies::{Intake, Spans};
use crate::store::checksums::{self, Algorithm};
use crate::store::conditions::Conditions;
use crate::store::facts::Facts;
use crate::store::listing::after_all;
use crate::store::multipart::{self, Claimed, Part as Row, Said, Upload};
use crate::store::objects::hex;
use crate::store::{Problem, ranges};

/// Parts are numbered up to here.
const MOST_PARTS: i32 = 10_000;

pub async fn create_multipart_upload(
    store: &Store,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let input = request.input;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    objects::check_key(&input.key)?;
    let algorithm = input.checksum_algorithm.as_ref();
    let algorithm = algorithm
        .map(|named| Algorithm::named(named.as_str()))
        .transpose()?;
    let full_object = match (
        algorithm,
        input.checksum_type.as_ref().map(ChecksumType::as_str),
    ) {
        (Some(Algorithm::Sha1 | Algorithm::Sha256), Some("FULL_OBJECT")) => {
            return Err(s3_error!(
                InvalidRequest,
                "The FULL_OBJECT checksum type cannot be used with this checksum algorithm."
            ));
        }
        (Some(Algorithm::Crc64Nvme), Some("COMPOSITE")) => {
            return Err(s3_error!(
                InvalidRequest,
                "The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm."
            ));
        }
        (Some(Algorithm::Crc64Nvme), _) | (Some(_), Some("FULL_OBJECT")) => true,
        (None, Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            ));
        }
        _ => false,
    };
    let upload = Upload {
        id: uuid::Uuid::new_v4().simple().to_string(),
        bucket: 0,
        key: input.key.clone(),
        begun_ms: 0,
        class: class(input.storage_class.as_ref())?,
        tags: tags::of_header(input.tagging.as_deref())?,
        facts: facts!(input)?,
        algorithm,
        full_object,
    };
    let id = upload.id.clone();
    let bucket = input.bucket.clone();
    store
        .write(move |turn| multipart::begin(turn, &bucket, &upload))
        .await?;
    answer(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        checksum_algorithm: algorithm.map(|named| ChecksumAlgorithm::from_static(named.name())),
        checksum_type: algorithm.map(|_| checksum_type(full_object)),
        upload_id: Some(id),
        ..CreateMultipartUploadOutput::default()
    })
}

fn checksum_type(full_object: bool) -> ChecksumType {
    ChecksumType::from_static(if full_object {
        ChecksumType::FULL_OBJECT
    } else {
        ChecksumType::COMPOSITE
    })
}

fn check_number(number: i32) -> S3Result<()> {
    if (1..=MOST_PARTS).contains(&number) {
        return Ok(());
    }
    Err(s3_error!(
        InvalidArgument,
        "Part number must be an integer between 1 and {MOST_PARTS}, inclusive"
    ))
}

pub async fn upload_part(
    store: &Store,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let md5 = writes::Said::md5_of(&request.headers)?;
    let named = writes::Said::algorithm_of(&request.headers)?;
    let trailing = request.trailing_headers;
    let input = request.input;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    check_number(input.part_number)?;
    let (bucket, key, id) = (input.bucket, input.key, input.upload_id);
    let place = (bucket.clone(), key.clone(), id.clone());
    let upload = store
        .read(move |db| multipart::find(db, &place.0, &place.1, &place.2))
        .await?;
    if let (Some(of_upload), Some(of_part)) = (upload.algorithm, named)
        && of_upload != of_part
    {
        return Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            of_upload.name().to_ascii_lowercase(),
            of_part.name().to_ascii_lowercase()
        ));
    }
    let said = writes::Said {
        length: input.content_length,
        checksums: said!(input),
        trailing,
        md5,
        algorithm: upload.algorithm.or(named),
    };
    let draft = receive(store, input.body, &said).await?;
    let tag = hex(&draft.md5);
    let mut sums = draft.checksums.clone();
    // Only of the upload's kind: others were compared and are done with.
    let kept = upload
        .algorithm
        .and_then(|algorithm| algorithm.of(&sums).cloned());
    if let (Some(algorithm), true) = (upload.algorithm, kept.is_some()) {
        let kept = kept.clone().unwrap_or_default();
        sums = Checksum::default();
        algorithm.put(&mut sums, kept);
    }
    store
        .write(move |turn| {
            multipart::put_part(turn, (&bucket, &key, &id), input.part_number, draft, kept)
        })
        .await?;
    answer(told!(
        sums,
        UploadPartOutput {
            e_tag: Some(etag(&tag)),
            ..UploadPartOutput::default()
        }
    ))
}

pub async fn upload_part_copy(
    store: &Store,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let input = request.input;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    check_number(input.part_number)?;
    let source = source_of(&input.copy_source)?;
    let conditions = source_conditions!(input);
    let (bucket, key, id) = (input.bucket, input.key, input.upload_id);
    let place = (bucket.clone(), key.clone(), id.clone());
    let upload = store
        .read(move |db| multipart::find(db, &place.0, &place.1, &place.2))
        .await?;
    let range = input.copy_source_range;
    let reader = store.clone();
    let copied = tokio::task::spawn_blocking(move || -> Result<_, Problem> {
        let (of, at) = source.clone();
        let reading = reader.lookup(move |db| {
            let object = objects::get(db, &of, &at)?;
            conditions.of_source(object.version())?;
            let bytes = ranges::of_source(range.as_deref(), object.size)?;
            Ok(Some(Spans::of(db, object.body, bytes)?))
        })?;
        let wanted: Vec<Algorithm> = upload.algorithm.into_iter().collect();
        let mut intake = Intake::new(&reader.inner.files, checksums::hasher(&wanted));
        if let Some(mut reading) = reading {
            while let Some(bytes) = reading
                .read_on()
                .inspect_err(|problem| reader.note_damage(&source.0, &source.1, problem))?
            {
                written(&reader, intake.write(&bytes))?;
            }
        }
        Ok((written(&reader, intake.finish())?, upload.algorithm))
    });
    let (draft, algorithm) = copied.await.map_err(s3s::S3Error::internal_error)??;
    let tag = hex(&draft.md5);
    let sums = draft.checksums.clone();
    let kept = algorithm.and_then(|algorithm| algorithm.of(&sums).cloned());
    let now = store.now_ms();
    store
        .write(move |turn| {
            multipart::put_part(turn, (&bucket, &key, &id), input.part_number, draft, kept)
        })
        .await?;
    answer(UploadPartCopyOutput {
        copy_part_result: Some(told!(
            sums,
            CopyPartResult {
                e_tag: Some(etag(&tag)),
                last_modified: Some(time(now)),
            }
        )),
        ..UploadPartCopyOutput::default()
    })
}

/// What the disk said to a write.
fn written<T>(store: &Store, done: std::io::Result<T>) -> Result<T, Problem> {
    done.map_err(Problem::from)
        .inspect_err(|problem| store.note_refusal(problem))
}

pub async fn complete_multipart_upload(
    store: &Store,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let input = request.input;
    let whole = said!(input);
    let parts = input
        .multipart_upload
        .and_then(|upload| upload.parts)
        .unwrap_or_default();
    let claimed: Vec<Claimed> = parts
        .into_iter()
        .map(|part| {
            let sums = said!(part);
            Claimed {
                number: part.part_number.unwrap_or(0),
                etag: part.e_tag.map(ETag::into_value),
                checksums: sums,
            }
        })
        .collect();
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        ..Conditions::default()
    };
    let said = Said {
        size: input.mpu_object_size.map(|size| size as u64),
        checksums: whole,
    };
    let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id);
    let place = (bucket.clone(), key.clone(), id.clone());
    let claimed = Arc::new(claimed);
    verify_whole(store, place, claimed.clone(), said.checksums.clone()).await?;
    let done = store
        .write(move |turn| {
            multipart::complete(turn, (&bucket, &key, &id), &claimed, &said, &conditions)
        })
        .await?;
    let sums = done.facts.to_checksum();
    answer(told!(
        sums,
        CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            checksum_type: sums.checksum_type,
            e_tag: Some(etag(&done.etag)),
            ..CompleteMultipartUploadOutput::default()
        }
    ))
}

/// Reads the parts of an upload that keeps no checksums and compares the one that was said of the whole.
async fn verify_whole(
    store: &Store,
    place: (String, String, String),
    claimed: Arc<Vec<Claimed>>,
    said: Checksum,
) -> S3Result<()> {
    let wanted: Vec<Algorithm> = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| algorithm.of(&said).is_some())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let reader = store.clone();
    let read = tokio::task::spawn_blocking(move || -> Result<_, Problem> {
        let reading = reader.lookup(move |db| {
            let upload = match multipart::find(db, &place.0, &place.1, &place.2) {
                // Whoever completes it judges that.
                Err(Problem::Refused(_)) => return Ok(None),
                upload => upload?,
            };
            match upload.algorithm {
                Some(_) => Ok(None),
                None => multipart::spans(db, &upload, &claimed).map(Some),
            }
        })?;
        let Some(mut reading) = reading else {
            return Ok(None);
        };
        let mut hasher = checksums::hasher(&wanted);
        while let Some(bytes) = reading.read_on()? {
            hasher.update(&bytes);
        }
        Ok(Some(hasher.finalize()))
    });
    match read.await.map_err(s3s::S3Error::internal_error)?? {
        Some(found) => checksums::compare(&said, &found),
        None => Ok(()),
    }
}

pub async fn abort_multipart_upload(
    store: &Store,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    store
        .write(move |turn| multipart::abort(turn, &input.bucket, &input.key, &input.upload_id))
        .await?;
    answer(AbortMultipartUploadOutput::default())
}

pub async fn list_parts(
    store: &Store,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    let most = input.max_parts.map_or(1000, |most| most.clamp(0, 1000)) as usize;
    let after = input.part_number_marker.unwrap_or(0);
    let place = (
        input.bucket.clone(),
        input.key.clone(),
        input.upload_id.clone(),
    );
    let (upload, mut parts) = store
        .read(move |db| {
            let upload = multipart::find(db, &place.0, &place.1, &place.2)?;
            let parts = multipart::parts(db, &upload.id, after, most + 1)?;
            Ok((upload, parts))
        })
        .await?;
    let more = parts.len() > most;
    parts.truncate(most);
    let next = parts.last().map(|part| part.number);
    let algorithm = upload.algorithm;
    let told = |part: Row| {
        let mut sums = Checksum::default();
        if let (Some(algorithm), Some(sum)) = (algorithm, part.checksum) {
            algorithm.put(&mut sums, sum);
        }
        told!(
            sums,
            Part {
                e_tag: Some(etag(&part.etag)),
                last_modified: Some(time(part.written_ms)),
                part_number: Some(part.number),
                size: Some(part.size as i64),
            }
        )
    };
    answer(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        checksum_algorithm: algorithm.map(|named| ChecksumAlgorithm::from_static(named.name())),
        checksum_type: algorithm.map(|_| checksum_type(upload.full_object)),
        initiator: Some(initiator()),
        owner: Some(owner()),
        is_truncated: Some(more),
        max_parts: Some(most as i32),
        next_part_number_marker: next,
        part_number_marker: Some(after),
        parts: (!parts.is_empty()).then(|| parts.into_iter().map(told).collect()),
        storage_class: Some(StorageClass::from(
            upload.class.unwrap_or_else(|| "STANDARD".into()),
        )),
        ..ListPartsOutput::default()
    })
}

fn initiator() -> Initiator {
    Initiator {
        display_name: owner().display_name,
        id: owner().id,
    }
}

pub async fn list_multipart_uploads(
    store: &Store,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    let names = Names::of(input.encoding_type.as_ref())?;
    let most = input.max_uploads.map_or(1000, |most| most.clamp(0, 1000)) as usize;
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input
        .delimiter
        .clone()
        .filter(|delimiter| !delimiter.is_empty());
    let marker = input.key_marker.clone().unwrap_or_default();
    let id_marker = input.upload_id_marker.clone().filter(|id| !id.is_empty());
    let name = input.bucket.clone();
    let cut = delimiter.clone();
    let (uploads, prefixes, more, next) = store
        .read(move |db| {
            let bucket = objects::bucket(db, &name)?;
            let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
            let (mut key, mut id) = (marker, id_marker);
            let rolled_up = |key: &str| {
                let cut = cut.as_deref()?;
                let at = key.strip_prefix(prefix.as_str())?.find(cut)?;
                Some(key[..prefix.len() + at + cut.len()].to_owned())
            };
            let mut least = prefix.clone();
            // A marker that is a common prefix has been told.
            if rolled_up(&key).as_deref() == Some(key.as_str()) {
                match after_all(&key) {
                    Some(next) => least = next,
                    None => return Ok((uploads, prefixes, false, None)),
                }
            }
            'seek: loop {
                let left = most - uploads.len() - prefixes.len();
                let page =
                    multipart::list(db, bucket, (&prefix, &least), (&key, id.as_deref()), left)?;
                for upload in page {
                    if uploads.len() + prefixes.len() == most {
                        return Ok((uploads, prefixes, true, Some((key, id))));
                    }
                    if let Some(common) = rolled_up(&upload.key) {
                        (key, id) = (common.clone(), None);
                        let next = after_all(&common);
                        prefixes.push(common);
                        match next {
                            Some(next) => least = next,
                            None => return Ok((uploads, prefixes, false, None)),
                        }
                        continue 'seek;
                    }
                    (key, id) = (upload.key.clone(), Some(upload.id.clone()));
                    uploads.push(upload);
                }
                return Ok((uploads, prefixes, false, None));
            }
        })
        .await?;
    let told = uploads.into_iter().map(|upload| MultipartUpload {
        checksum_algorithm: upload
            .algorithm
            .map(|named| ChecksumAlgorithm::from_static(named.name())),
        checksum_type: upload.algorithm.map(|_| checksum_type(upload.full_object)),
        initiated: Some(time(upload.begun_ms)),
        initiator: Some(initiator()),
        key: Some(names.shown(upload.key)),
        owner: Some(owner()),
        storage_class: Some(StorageClass::from(
            upload.class.unwrap_or_else(|| "STANDARD".into()),
        )),
        upload_id: Some(upload.id),
    });
    let told: Vec<_> = told.collect();
    let prefixes: Vec<_> = prefixes
        .into_iter()
        .map(|prefix| CommonPrefix {
            prefix: Some(names.shown(prefix)),
        })
        .collect();
    let (next_key, next_id) = next.map_or((None, None), |(key, id)| (Some(key), id));
    answer(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
        delimiter: delimiter.map(|delimiter| names.shown(delimiter)),
        encoding_type: names.told(),
        is_truncated: Some(more),
        key_marker: Some(names.shown(input.key_marker.unwrap_or_default())),
        max_uploads: Some(most as i32),
        next_key_marker: next_key.map(|key| names.shown(key)),
        next_upload_id_marker: next_id,
        prefix: Some(names.shown(input.prefix.unwrap_or_default())),
        upload_id_marker: input.upload_id_marker,
        uploads: (!told.is_empty()).then_some(told),
        ..ListMultipartUploadsOutput::default()
    })
}
