//! thin-edge's configuration: the file `tedge.toml`, and the environment, which goes before it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::cryptoki_config::{CryptokiConfig, Mode};
use crate::error::Error;

/// Both sources of a value. Nothing in either is quoted in an error: it may be a PIN.
struct Sources<'a> {
    /// The name of the file, for errors.
    name: &'a str,
    file: Table,
    environment: &'a dyn Fn(&str) -> Option<OsString>,
}

impl CryptokiConfig {
    /// What `tedge.toml` in this folder and the environment say, as `device.cryptoki.mode` and
    /// `TEDGE_DEVICE_CRYPTOKI_MODE` for example. A variable goes before the file; what is empty counts as not set.
    ///
    /// With a cloud, `c8y` or `c8y.profiles.NAME` for example, its own `device.key_uri`, `device.key_pin` and
    /// `device.cert_path` go before those of the device (`c8y.device.key_uri`, `TEDGE_C8Y_DEVICE_KEY_URI`). Without a
    /// `cert_path` it is thin-edge's own, `device-certs/tedge-certificate.pem` in this folder. A file that is not there says
    /// nothing.
    ///
    /// PINs that a token has refused are remembered for the next process in the first folder of `$RUNTIME_DIRECTORY`
    /// (systemd.exec(5)), else in `$XDG_RUNTIME_DIR`. With neither, programs that start again and again with a wrong PIN
    /// can lock a token.
    ///
    /// # Errors
    /// [`Error::Config`] where the file cannot be read or understood, with its line, or a value is none.
    pub fn load(config_dir: impl AsRef<Path>, cloud: Option<&str>) -> Result<Self, Error> {
        let config_dir = config_dir.as_ref();
        let path = config_dir.join("tedge.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::Config(format!("{path:?} cannot be read: {e}"))),
        };
        let name = path.display().to_string();
        let mut config = read(&name, &text, &|name| env::var_os(name), cloud)?;
        let usual = || config_dir.join("device-certs/tedge-certificate.pem");
        config.cert_path.get_or_insert_with(usual);
        config.refusals = runtime_folder();
        Ok(config)
    }

    /// What a text in the form of `tedge.toml` says, without the environment.
    ///
    /// # Errors
    /// As [`CryptokiConfig::load`].
    pub fn from_toml(text: &str, cloud: Option<&str>) -> Result<Self, Error> {
        read("tedge.toml", text, &|_| None, cloud)
    }
}

/// A folder of this user alone that is gone after a boot.
fn runtime_folder() -> Option<PathBuf> {
    let folders = |variable| env::var_os(variable).filter(|folders| !folders.is_empty());
    let of_service = folders("RUNTIME_DIRECTORY");
    let of_service = of_service.and_then(|folders| env::split_paths(&folders).next());
    of_service.or_else(|| folders("XDG_RUNTIME_DIR").map(PathBuf::from))
}

fn read(
    name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<OsString>,
    cloud: Option<&str>,
) -> Result<CryptokiConfig, Error> {
    let sources = Sources {
        name,
        file: toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            Error::Config(format!(
                "{name} line {line} is no valid TOML; each key stands once, text in quotes: pin = \"...\""
            ))
        })?,
        environment,
    };
    let mode = sources.value("device.cryptoki.mode")?;
    let pin = sources.value("device.cryptoki.pin")?;
    let of_key = |field: &str| {
        let of_cloud = cloud.map(|cloud| sources.value(&format!("{cloud}.device.{field}")));
        match of_cloud.transpose()?.flatten() {
            Some(value) => Ok(Some(value)),
            None => sources.value(&format!("device.{field}")),
        }
    };
    let config = CryptokiConfig {
        // As thin-edge called it before 1.6.
        mode: match mode.or(sources.value("device.cryptoki.enable")?) {
            Some(mode) => mode_of(&mode)?,
            None => Mode::default(),
        },
        module_path: sources
            .value("device.cryptoki.module_path")?
            .map(PathBuf::from),
        pin_is_empty: pin.is_none() && sources.is_set("device.cryptoki.pin"),
        pin: pin.map(Into::into),
        uri: sources.value("device.cryptoki.uri")?.map(Into::into),
        socket_path: sources
            .value("device.cryptoki.socket_path")?
            .map(PathBuf::from),
        key_uri: of_key("key_uri")?.map(Into::into),
        key_pin: of_key("key_pin")?.map(Into::into),
        cert_path: of_key("cert_path")?.map(PathBuf::from),
        refusals: None,
    };
    config.check_uris()?;
    Ok(config)
}

impl Sources<'_> {
    /// The value of a key, `device.cryptoki.mode` for example.
    fn value(&self, key: &str) -> Result<Option<String>, Error> {
        let variable = variable(key);
        if let Some(value) = (self.environment)(&variable).filter(|value| !value.is_empty()) {
            let value = value.into_string();
            return value.map(Some).map_err(|_| {
                Error::Config(format!(
                    "the environment variable {variable} is not UTF-8 text"
                ))
            });
        }
        match self.in_file(key)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(Error::Config(format!(
                "{} must be text: {} = \"...\" in {}",
                key,
                key.rsplit('.').next().unwrap_or(key),
                self.name
            ))),
        }
    }

    fn is_set(&self, key: &str) -> bool {
        (self.environment)(&variable(key)).is_some() || self.in_file(key).is_ok_and(|v| v.is_some())
    }

    fn in_file(&self, key: &str) -> Result<Option<&Value>, Error> {
        let (tables, field) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &self.file;
        for part in tables.split('.') {
            table = match table.get(part) {
                None => return Ok(None),
                Some(Value::Table(inner)) => inner,
                Some(_) => {
                    let what = format!("{part} of {key} must be a table in {}", self.name);
                    return Err(Error::Config(what));
                }
            };
        }
        Ok(table.get(field))
    }
}

/// `TEDGE_DEVICE_CRYPTOKI_MODE`
fn variable(key: &str) -> String {
    format!("TEDGE_{}", key.replace('.', "_").to_uppercase())
}

fn mode_of(text: &str) -> Result<Mode, Error> {
    match text {
        "off" => Ok(Mode::Off),
        "module" => Ok(Mode::Module),
        "socket" => Ok(Mode::Socket),
        _ => Err(Error::Config(
            "device.cryptoki.mode must be \"off\", \"module\" or \"socket\"".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [device]
        key_uri = "pkcs11:token=device"
        key_pin = "1111"
        cert_path = "/device.pem"
        [device.cryptoki]
        mode = "socket"
        pin = "2222"
        uri = "pkcs11:token=device?pin-value=3333"
        socket_path = "/p11.sock"
        module_path = ""
        [c8y.device]
        key_uri = "pkcs11:token=cloud"
        [c8y.profiles.factory.device]
        key_pin = "4444"
        [az]
        url = "az.example"
    "#;

    fn read_with(variables: &[(&str, &str)], cloud: Option<&str>) -> CryptokiConfig {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.into())
        };
        read("tedge.toml", FILE, &environment, cloud).unwrap()
    }

    #[test]
    fn a_file_is_read_and_pins_are_hidden() {
        let config = CryptokiConfig::from_toml(FILE, None).unwrap();
        let expected = CryptokiConfig::socket("/p11.sock")
            .pin("2222")
            .uri("pkcs11:token=device?pin-value=3333")
            .key_uri("pkcs11:token=device")
            .key_pin("1111")
            .cert_path("/device.pem");
        assert_eq!(config, expected);
        let shown = format!("{config:?}");
        assert!(
            ["1111", "2222", "3333"]
                .iter()
                .all(|pin| !shown.contains(pin)),
            "{shown}"
        );
    }

    #[test]
    fn a_cloud_goes_before_the_device_and_a_variable_before_the_file() {
        let uri_and_pin = |variables: &[(&str, &str)], cloud| {
            let config = read_with(variables, cloud);
            let pin = config.key_pin.map(|pin| pin.expose().to_owned());
            (config.key_uri.unwrap().to_string(), pin.unwrap())
        };
        let own = |uri: &str, pin: &str| (format!("pkcs11:token={uri}"), pin.to_owned());
        assert_eq!(uri_and_pin(&[], Some("c8y")), own("cloud", "1111"));
        assert_eq!(uri_and_pin(&[], Some("az")), own("device", "1111"));
        let profile = Some("c8y.profiles.factory");
        assert_eq!(uri_and_pin(&[], profile), own("device", "4444"));
        let of_device = [("TEDGE_DEVICE_KEY_URI", "pkcs11:token=env")];
        assert_eq!(uri_and_pin(&of_device, None), own("env", "1111"));
        assert_eq!(uri_and_pin(&of_device, Some("c8y")), own("cloud", "1111"));
        let of_profile = [("TEDGE_C8Y_PROFILES_FACTORY_DEVICE_KEY_PIN", "5555")];
        assert_eq!(uri_and_pin(&of_profile, profile), own("device", "5555"));
        let config = read_with(
            &[
                ("TEDGE_DEVICE_CRYPTOKI_MODE", "module"),
                ("TEDGE_DEVICE_CRYPTOKI_PIN", ""),
            ],
            None,
        );
        assert_eq!(config.mode, Mode::Module);
        assert_eq!(config.pin.unwrap().expose(), "2222");
    }

    #[test]
    fn a_pin_that_is_set_to_nothing_is_not_the_conventional_one() {
        let empty = CryptokiConfig::from_toml("device.cryptoki.pin = \"\"", None).unwrap();
        assert!(empty.pin.is_none() && empty.pin_is_empty);
        assert!(!CryptokiConfig::from_toml("", None).unwrap().pin_is_empty);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_without_a_pin() {
        for (text, part) in [
            (
                "[device.cryptoki]\npin = 1234",
                "device.cryptoki.pin must be text",
            ),
            ("[device]\n\nkey_pin = 1234x", "line 3"),
            ("[device]\nkey_pin = \"1234", "line 2"),
            (
                "device = \"1234\"",
                "device of device.cryptoki.mode must be a table",
            ),
            (
                "[device]\ncryptoki.mode = \"socket\"\nkey_uri = \"1234\"",
                "key_uri is no PKCS#11 URI",
            ),
            (
                "[device.cryptoki]\nmode = \"1234\"",
                "\"off\", \"module\" or \"socket\"",
            ),
        ] {
            let error = CryptokiConfig::from_toml(text, None).unwrap_err();
            assert_eq!(error.code(), "Config");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(part) && !shown.contains("1234"), "{shown}");
        }
    }

    #[test]
    fn a_uri_that_is_none_is_told_before_a_handshake() {
        let config = CryptokiConfig::socket("/p11.sock").key_uri("token=device");
        let config = config.cert_path("/device.pem");
        for error in [config.client().err(), config.resolver().err()] {
            assert_eq!(error.unwrap().code(), "Config");
        }
        // It is the server's.
        let config = CryptokiConfig::socket("/p11.sock").uri("token=device");
        assert!(config.client().is_ok());
    }

    #[test]
    fn a_part_of_another_configuration_is_read_by_serde() {
        let text = "enable = \"socket\"\nkey_pin = \"1111\"\nsocket_path = \"/p11.sock\"";
        let config: CryptokiConfig = toml::from_str(text).unwrap();
        assert_eq!(config, CryptokiConfig::socket("/p11.sock").key_pin("1111"));
        // What toml itself shows is the line, so only the message counts.
        for value in ["77777777", "7777.7777", "[7777]"] {
            let text = format!("key_pin = {value}");
            let error = toml::from_str::<CryptokiConfig>(&text).unwrap_err();
            assert!(error.message().contains("a PIN must be text"), "{error}");
        }
    }
}
