//! PutResourcePolicy, DescribeResourcePolicy, DeleteResourcePolicy.
//!
//! A policy is kept and given back; there are no other accounts it could let in, so nothing evaluates it.

use serde_json::{Value, json};

use super::{Request, answer, time};
use crate::service::faults::Fault;

/// PutResourcePolicy: with a revision id only if that is the current one.
pub async fn put(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let (arn, policy) = (
        input.required("ResourceArn")?,
        input.required("ResourcePolicy")?,
    );
    if !serde_json::from_str(policy).is_ok_and(|policy: Value| policy.is_object()) {
        return Err(Fault::validation("ResourcePolicy must be a JSON object"));
    }
    let expected = input.text("PolicyRevisionId").map(str::to_owned);
    let made = request
        .store
        .put_policy(request.once(), arn, policy, expected, request.now);
    answer(made.await?)
}

/// DescribeResourcePolicy.
pub async fn describe(request: &Request<'_>) -> Result<Value, Fault> {
    let arn = request.input.required("ResourceArn")?;
    let policy = request.store.policy(arn).await?;
    Ok(json!({
        "PolicyRevisionId": policy.revision,
        "ResourcePolicy": policy.text,
        "CreationTime": time(policy.created_us),
        "LastModifiedTime": time(policy.updated_us),
    }))
}

/// DeleteResourcePolicy.
pub async fn delete(request: &Request<'_>) -> Result<Value, Fault> {
    let arn = request.input.required("ResourceArn")?;
    request.store.delete_policy(arn).await?;
    Ok(Value::Null)
}
