//! Who writes the logs and traces.

use std::env;

use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_sdk::Resource;

use super::Config;

const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";

/// What the SDK calls a service whose name it does not know.
const UNKNOWN: &str = "unknown_service";

/// The resource's attributes, and the service's name among them.
pub(super) fn detect(config: &Config) -> (Resource, String) {
    let resource = Resource::builder();
    let detected = Resource::builder().build();
    let name = name(
        config.service_name.clone(),
        env::var("OTEL_SERVICE_NAME").ok(),
        detected
            .get(&Key::from_static_str(SERVICE_NAME))
            .map(|name: Value| name.to_string()),
        env::current_exe()
            .ok()
            .and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned())),
    );
    let version = config.service_version.clone();
    let version = version.map(|version| KeyValue::new(SERVICE_VERSION, version));
    let resource = resource
        .with_service_name(name.clone())
        .with_attributes(version)
        .build();
    (resource, name)
}

fn name(
    configured: Option<String>,
    variable: Option<String>,
    attribute: Option<String>,
    executable: Option<String>,
) -> String {
    let attribute = attribute.filter(|name| !name.starts_with(UNKNOWN));
    [configured, variable, attribute, executable]
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| UNKNOWN.to_owned())
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn prefers_the_configured_name_then_the_environment_then_the_executable() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Some(name.to_owned()));
        let unknown = Some("unknown_service:d".to_owned());
        assert_eq!(name(a, b.clone(), c.clone(), d.clone()), "a");
        assert_eq!(name(None, b, c.clone(), d.clone()), "b");
        assert_eq!(name(None, Some(String::new()), c, d.clone()), "c");
        assert_eq!(name(None, None, unknown, d), "d");
        assert_eq!(name(None, None, None, None), "unknown_service");
    }
}
