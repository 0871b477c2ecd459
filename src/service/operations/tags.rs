//! TagResource, UntagResource, ListTagsForResource.

use serde_json::{Value, json};

use super::Request;
use crate::service::faults::Fault;

/// TagResource: adds tags or replaces their values.
pub async fn tag(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let arn = input.required("ResourceArn")?;
    request.store.tag(arn, input.tags()?).await?;
    Ok(json!({}))
}

/// UntagResource: removes tags; absent keys are no error.
pub async fn untag(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let keys = input.get("TagKeys").and_then(Value::as_array);
    let keys = keys.into_iter().flatten().filter_map(Value::as_str);
    let keys = keys.map(str::to_owned).collect();
    request
        .store
        .untag(input.required("ResourceArn")?, keys)
        .await?;
    Ok(json!({}))
}

/// ListTagsForResource, by key.
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let tags = request
        .store
        .tags(request.input.required("ResourceArn")?)
        .await?;
    let tags: Vec<Value> = tags
        .into_iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    Ok(json!({"Tags": tags}))
}
