//! Listing what lies under a prefix, page by page.
//!
//! A listing ends where the store says that it does (`IsTruncated`), not at a page that is empty: a versioned bucket with
//! many delete markers has such pages. A token that leads to where it came from is an error instead of an endless loop.

use super::{Bucket, Failure, S3Error, Transport};

/// Keys of the largest page.
const PAGE: usize = 1000;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its ETag, which tells one version of it from another.
    pub etag: Option<String>,
}

impl Bucket {
    /// The keys under `prefix` that come after `start_after`, in order, until `keep` says stop.
    pub async fn list(
        &self,
        prefix: &str,
        start_after: &str,
        mut keep: impl FnMut(&str) -> bool,
    ) -> Result<Vec<String>, S3Error> {
        let mut keys = Vec::new();
        let take = |listed: Listed| {
            let wanted = keep(&listed.key);
            if wanted {
                keys.push(listed.key);
            }
            wanted
        };
        self.walk(prefix, start_after, None, take).await?;
        Ok(keys)
    }

    /// Gives `take` the objects under `prefix` that come after `start_after`, in order, until it says stop or a page ends with
    /// `most` or more given, which are the most that a page is asked to have. Returns whether that was all there is.
    pub async fn walk(
        &self,
        prefix: &str,
        start_after: &str,
        most: Option<usize>,
        mut take: impl FnMut(Listed) -> bool,
    ) -> Result<bool, S3Error> {
        let (mut token, mut after) = (None::<String>, start_after.to_owned());
        let page_size = most.map(|most| most.clamp(1, PAGE) as i32);
        let mut given = 0;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.name)
                .prefix(prefix)
                .set_start_after((!after.is_empty()).then(|| after.clone()))
                .set_continuation_token(token.clone())
                .set_max_keys(page_size)
                .send()
                .await
                .map_err(|error| self.error("ListObjectsV2", prefix, Failure::from(&error)))?;
            let mut last = None;
            for object in page.contents() {
                let Some(key) = object.key() else { continue };
                let size = object.size().and_then(|size| u64::try_from(size).ok());
                given += 1;
                if !take(Listed {
                    key: key.to_owned(),
                    size: size.unwrap_or(0),
                    etag: object.e_tag().map(str::to_owned),
                }) {
                    return Ok(false);
                }
                last = Some(key.to_owned());
            }
            if !page.is_truncated().unwrap_or(false) {
                return Ok(true);
            }
            if most.is_some_and(|most| given >= most) {
                return Ok(false);
            }
            let next = page
                .next_continuation_token()
                .filter(|next| !next.is_empty());
            match (next, last) {
                (Some(next), _) if token.as_deref() != Some(next) => token = Some(next.to_owned()),
                // A store without tokens goes on after the last key.
                (None, Some(last)) if last > after => (token, after) = (None, last),
                _ => return Err(self.error("ListObjectsV2", prefix, stuck())),
            }
        }
    }
}

fn stuck() -> Failure {
    Failure {
        status: None,
        code: None,
        transport: Some(Transport::Other),
        message: "the store says that its listing goes on and not where: its continuation token stands still".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A store that answers listings with these pages, the last one again and again; notes what it was asked.
    async fn store(pages: &[(&str, bool, &str)]) -> (Bucket, Arc<Mutex<Vec<String>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let pages: Vec<String> = pages
            .iter()
            .map(|(keys, truncated, token)| {
                let contents: String = keys
                    .split_whitespace()
                    .map(|key| format!("<Contents><Key>{key}</Key><Size>7</Size></Contents>"))
                    .collect();
                let token = match *token {
                    "" => String::new(),
                    token => format!("<NextContinuationToken>{token}</NextContinuationToken>"),
                };
                format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{contents}</ListBucketResult>")
            })
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            for page in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                noted
                    .lock()
                    .unwrap()
                    .push(request.lines().next().unwrap().to_owned());
                let body = &pages[page.min(pages.len() - 1)];
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let client = crate::s3::local_client(&endpoint, "a", "s");
        (Bucket::new(client, "b"), asked)
    }

    #[tokio::test]
    async fn an_empty_page_that_is_truncated_is_not_the_end() {
        let (bucket, asked) =
            store(&[("", true, "t1"), ("", true, "t2"), ("a b", false, "t3")]).await;
        assert_eq!(bucket.list("", "", |_| true).await.unwrap(), ["a", "b"]);
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 3);
        assert!(asked[2].contains("continuation-token=t2"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_store_without_tokens_goes_on_after_the_last_key() {
        let (bucket, asked) = store(&[("a b", true, ""), ("c", false, "")]).await;
        assert_eq!(
            bucket.list("", "", |_| true).await.unwrap(),
            ["a", "b", "c"]
        );
        assert!(asked.lock().unwrap()[1].contains("start-after=b"));
    }

    #[tokio::test]
    async fn a_listing_that_stands_still_is_an_error() {
        for pages in [
            &[("a", true, "t")][..],
            &[("", true, "")],
            &[("a", true, "")],
        ] {
            let (bucket, asked) = store(pages).await;
            let error = bucket.list("", "", |_| true).await.unwrap_err();
            assert!(error.to_string().contains("stands still"), "{error}");
            assert!(asked.lock().unwrap().len() <= 2);
        }
    }

    #[tokio::test]
    async fn a_walk_stops_where_it_is_told_and_says_whether_that_was_all() {
        let pages = [("a b c", true, "t"), ("d", false, "")];
        let (bucket, asked) = store(&pages).await;
        let mut sizes = 0;
        let all = bucket.walk("", "", Some(3), |object| {
            sizes += object.size;
            true
        });
        assert!(!all.await.unwrap());
        assert_eq!((sizes, asked.lock().unwrap().len()), (21, 1));
        let (bucket, _) = store(&pages).await;
        assert!(bucket.walk("", "", None, |_| true).await.unwrap());
        let (bucket, _) = store(&pages).await;
        assert!(
            !bucket
                .walk("", "", None, |object| object.key != "b")
                .await
                .unwrap()
        );
    }
}
