//! A model's schema: the components and sensors its schedulers need files for.

use aws_sdk_lookoutequipment::Client;
use serde::Deserialize;

use super::api::ApiError;

/// One component of a model's schema and its sensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaComponent {
    /// `ComponentName`.
    pub name: String,
    /// Columns of type DOUBLE, in the schema's order.
    pub sensors: Vec<String>,
}

/// The components of a model's schema; `None` where the service does not say (it may not serve DescribeModel).
pub async fn model_schema(
    client: &Client,
    model: &str,
) -> Result<Option<Vec<SchemaComponent>>, ApiError> {
    let answer = client
        .describe_model()
        .model_name(model)
        .send()
        .await
        .map_err(ApiError::of("DescribeModel"));
    match answer {
        Ok(output) => Ok(output.schema().and_then(read_schema)),
        Err(error) if error.is_unknown_operation() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the API's schema string; `None` where it is not one.
fn read_schema(text: &str) -> Option<Vec<SchemaComponent>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Schema {
        components: Vec<Component>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Component {
        component_name: String,
        columns: Vec<Column>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Column {
        name: String,
        r#type: String,
    }
    let schema: Schema = serde_json::from_str(text).ok()?;
    let component = |component: Component| SchemaComponent {
        name: component.component_name,
        sensors: component
            .columns
            .into_iter()
            .filter(|column| column.r#type == "DOUBLE")
            .map(|column| column.name)
            .collect(),
    };
    Some(schema.components.into_iter().map(component).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_read_and_anything_else_is_not() {
        let text = r#"{"Components":[{"ComponentName":"c-1","Columns":[{"Name":"T","Type":"DATETIME"},{"Name":"a","Type":"DOUBLE"}]}]}"#;
        assert_eq!(
            read_schema(text),
            Some(vec![SchemaComponent {
                name: "c-1".into(),
                sensors: vec!["a".into()]
            }])
        );
        assert_eq!(read_schema("{}"), None);
    }
}
