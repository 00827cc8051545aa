//! The description of this API as a page: made from `/openapi.json`, without a script.

use std::fmt::Write;

use serde_json::Value;

use super::problem::Code;

/// The methods, in the order in which they are shown.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The page.
pub(super) fn page(document: &Value, base: &str, styles: &str) -> String {
    let mut html = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut html, document, base, styles);
    html
}

fn write_page(html: &mut String, document: &Value, base: &str, styles: &str) -> std::fmt::Result {
    write!(
        html,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>light-task-scheduler: HTTP API</title>\
         <link rel=\"stylesheet\" href=\"{}\"><h1>HTTP API</h1><p>{}</p>\
         <p>Version {}. The same for programs: <a href=\"{base}/openapi.json\">openapi.json</a> (OpenAPI 3.1).</p>",
        escaped(styles),
        escaped(text(document, "/info/description")),
        escaped(text(document, "/info/version")),
    )?;
    let operations = operations(document);
    html.push_str("<nav><ul>");
    for operation in &operations {
        write!(html, "<li><a href=\"#{}\">{}</a></li>", operation.id(), escaped(text(operation.value, "/summary")))?;
    }
    html.push_str("<li><a href=\"#errors\">Errors</a></li></ul></nav><main>");
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = text(tag, "/name");
        write!(html, "<h2>{}</h2><p>{}</p>", escaped(name), escaped(text(tag, "/description")))?;
        for operation in operations.iter().filter(|operation| operation.value["tags"][0] == *name) {
            operation.write(html, base)?;
        }
    }
    html.push_str(
        "<h2 id=\"errors\">Errors</h2><p>Every failure is a problem detail with one of these codes.</p><table>",
    );
    for code in Code::ALL {
        let name = code.as_str();
        write!(html, "<tr id=\"{name}\"><td><code>{name}</code></td><td>{}</td></tr>", escaped(&code.in_words()))?;
    }
    html.push_str("</table></main></html>");
    Ok(())
}

/// One operation of the description.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    value: &'a Value,
    document: &'a Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for method in METHODS {
            if let Some(value) = item.get(method) {
                operations.push(Operation { method, path, value, document });
            }
        }
    }
    operations
}

impl Operation<'_> {
    fn id(&self) -> String {
        escaped(text(self.value, "/operationId"))
    }

    fn write(&self, html: &mut String, base: &str) -> std::fmt::Result {
        let role = text(self.value, "/security/0/token/0");
        let role = if role.is_empty() { "no token needed".to_owned() } else { format!("role: {role}") };
        write!(
            html,
            "<section id=\"{}\"><span class=\"role\">{}</span><h3><span class=\"method\">{}</span>{}{}</h3><p>{}</p><p>{}</p>",
            self.id(),
            escaped(&role),
            self.method.to_uppercase(),
            escaped(base),
            escaped(self.path),
            escaped(text(self.value, "/summary")),
            escaped(text(self.value, "/description")),
        )?;
        self.write_parameters(html)?;
        if let Some(body) = self.value.pointer("/requestBody/content/application~1json/schema") {
            self.write_body(html, body)?;
        }
        html.push_str("</section>");
        Ok(())
    }

    fn write_parameters(&self, html: &mut String) -> std::fmt::Result {
        let parameters: Vec<&Value> = self.value["parameters"].as_array().into_iter().flatten().collect();
        if parameters.is_empty() {
            return Ok(());
        }
        html.push_str("<table><tr><th>Parameter</th><th>In</th><th></th></tr>");
        for parameter in parameters {
            write!(
                html,
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                escaped(text(parameter, "/name")),
                escaped(text(parameter, "/in")),
                escaped(text(parameter, "/description")),
            )?;
        }
        html.push_str("</table>");
        Ok(())
    }

    fn write_body(&self, html: &mut String, schema: &Value) -> std::fmt::Result {
        let schema = match schema["$ref"].as_str().and_then(|name| name.strip_prefix('#')) {
            Some(pointer) => self.document.pointer(pointer).unwrap_or(&Value::Null),
            None => schema,
        };
        html.push_str("<table><tr><th>Field of the body</th><th></th></tr>");
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let needed = if required.contains(&name.as_str()) { " (required)" } else { "" };
            let what = escaped(text(field, "/description"));
            write!(html, "<tr><td><code>{}</code>{needed}</td><td>{what}</td></tr>", escaped(name))?;
        }
        html.push_str("</table>");
        if !schema["example"].is_null() {
            write!(html, "<pre>{}</pre>", escaped(&schema["example"].to_string()))?;
        }
        Ok(())
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A text as it may stand in a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
