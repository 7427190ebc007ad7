//! What a file, the environment and flags amount to together.

use std::collections::BTreeMap;

use super::*;
use crate::auth::{PullPolicy, PushPolicy};
use crate::http::listen::ListenAddress;
use crate::ingest::Accept;
use crate::sign::PublicKey;
use crate::tls::issuance::IssuerSettings;

const KEY: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// Loads `text` as `/etc/snowbank.toml` for a user with a home directory.
fn load_text(text: &str) -> Result<Config, String> {
    load_with(text, &Overrides::default(), &[])
}

fn load_with(
    text: &str,
    overrides: &Overrides,
    variables: &[(&str, &str)],
) -> Result<Config, String> {
    let mut variables: BTreeMap<_, _> = variables.iter().copied().collect();
    variables.entry("HOME").or_insert("/home/user");
    let lookup = |name: &str| variables.get(name).map(OsString::from);
    let environment = Environment { lookup: &lookup, is_root: false };
    let overrides = Overrides { working_dir: "/work".into(), ..overrides.clone() };
    parse(text, Path::new("/etc/snowbank.toml"), &overrides, &environment)
        .map_err(|error| error.to_string())
}

/// The example with every commented setting made a real one.
fn uncommented_example() -> String {
    let setting = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let line = |line: &'static str| if setting(line) { &line[1..] } else { line };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn default_config() -> Config {
    load_text("").unwrap()
}

#[test]
fn without_a_file_there_is_a_default_cache_with_bank_and_store() {
    let lookup = |_: &str| None;
    let config =
        load(&Overrides::default(), &Environment { lookup: &lookup, is_root: true }).unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/snowbank"));
    assert_eq!(config.caches.len(), 1);
    assert_eq!(config.caches[0].directory, Path::new("/var/lib/snowbank/default"));
    assert_eq!(config.caches[0].sources, [Source::Bank, Source::Store]);
    assert_eq!(config.caches[0].signing_keys, [SigningKey::Generated]);
    let store = config.store.unwrap();
    assert_eq!(store.real_store_dir, Path::new("/nix/store"));
    assert_eq!(store.database_dir(), Path::new("/nix/var/nix/db"));
}

#[test]
fn the_example_loads_and_changes_nothing() {
    assert_eq!(load_text(EXAMPLE).unwrap(), default_config());
}

#[test]
fn the_defaults_that_the_example_shows_are_those_of_the_code() {
    assert_eq!(load_text(&uncommented_example()).unwrap(), default_config());
}

#[test]
fn every_setting_is_in_the_example() {
    let shown: Table = uncommented_example().parse().unwrap();
    for key in keys::known_keys() {
        let found = match key.strip_prefix("store.") {
            Some(name) => EXAMPLE.contains(&format!("{name} = \"")),
            None => at(&shown, &key.replace('*', "default")).is_some(),
        };
        assert!(found, "{key} is not in src/config/example.toml");
    }
}

#[test]
fn a_wrong_type_is_reported_under_the_name_of_its_key() {
    for key in keys::known_keys() {
        let key = key.replace('*', "team");
        let error = load_text(&format!("{key} = 1.5\n")).unwrap_err();
        let expected = format!("/etc/snowbank.toml: {key} = 1.5: ");
        assert!(error.starts_with(&expected) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn names_of_client_certificates_are_given_rights_where_an_authority_is_named() {
    let tls = "[tls]\ncertificate = 'c.pem'\nkey = 'k.pem'\nclient_ca = 'ca.pem'\nclient_crl = 'crl.pem'\n";
    let client =
        "[client.ci]\nnames = ['*.ci.example', 'CN=ops']\nscopes = ['push']\ncaches = ['team']\n";
    let team = "[cache.team]\npush = 'mtls'\npull = 'token'\n";
    let config = load_text(&format!("{tls}{client}{team}")).unwrap();
    let [grant] = &config.clients[..] else { panic!("one grant: {:?}", config.clients) };
    assert_eq!((grant.names.len(), grant.push, grant.pull), (2, true, false));
    assert_eq!(grant.caches, Some(vec!["team".into()]));
    assert_eq!(config.caches[1].push, PushPolicy::Certificate);
    let clients = config.tls.unwrap().clients.unwrap();
    assert_eq!(clients.authorities, Path::new("/etc/ca.pem"));
    for (text, why) in [
        (format!("{client}{team}"), "client.ci.names = ["),
        (format!("{tls}{client}"), "there is no cache of this name"),
        (
            format!("{tls}[client.ci]\nnames = ['a']\n"),
            "client.ci.scopes = \"none\": \"push\", \"pull\"",
        ),
        (format!("{tls}[client.ci]\nscopes = ['push']\n"), "at least one name"),
        (format!("{tls}[client.ci]\nscopes = ['admin']\n"), "client.ci.scopes"),
        (format!("{tls}[client.ci]\nnames = ['']\n"), "is expected"),
        ("tls.client_ca = 'ca.pem'".into(), "it takes tls.certificate and tls.key"),
        ("tls.client_crl = 'crl.pem'".into(), "it takes tls.client_ca"),
        (format!("{tls}[client.ci]\nname = 1\n"), "did you mean client.<name>.names?"),
    ] {
        let error = load_text(&text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn what_is_issued_takes_names_and_an_issuer_and_nothing_that_is_given() {
    let internal = "[tls]\ncertificate_from = 'internal-ca'\n";
    let authority = "ca_certificate = 'i.pem'\nca_key = '/run/keys/i.key'\n";
    let acme = "[tls]\ncertificate_from = 'acme'\n";
    let directory = "acme_directory = 'https://ca.example.org/directory'\n";
    let names = "names = ['Cache.n3x.internal', '10.0.0.5']\n";
    let config = load_text(&format!("{internal}{authority}{names}")).unwrap();
    let Some(IssuerSettings::Internal(settings)) = config.issuer else { panic!("{config:?}") };
    let found: Vec<String> = settings.names.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["cache.n3x.internal", "10.0.0.5"]);
    assert_eq!(settings.certificate, Path::new("/etc/i.pem"));
    assert_ne!(config.tls.unwrap().certificate.certificate, Path::new("/etc/i.pem"));
    for (text, why) in [
        (format!("{internal}{authority}"), "tls.names = \"none\": at least one name"),
        (format!("{internal}{names}"), "it takes both tls.ca_certificate and tls.ca_key"),
        (format!("{internal}{names}ca_key = 'k'\n"), "it takes both tls.ca_certificate"),
        (
            format!("{internal}{names}{authority}certificate = 'c'\nkey = 'k'\n"),
            "none can be named",
        ),
        (format!("{internal}{names}{authority}{directory}"), "certificate_from = \"acme\" as well"),
        (format!("[tls]\n{authority}"), "certificate_from = \"internal-ca\" as well"),
        (format!("[tls]\n{names}"), "\"internal-ca\" or \"acme\" as well"),
        (format!("{internal}{authority}names = ['a b']\n"), "a DNS name such as"),
        (format!("{acme}names = ['n3x.internal']\n"), "the URL of the ACME server's directory"),
        (format!("{acme}{directory}"), "at least one name"),
        (format!("{acme}{directory}{names}"), "a DNS name such as"),
        (format!("{acme}{directory}names = ['*.n3x.internal']\n"), "a DNS name such as"),
        ("[tls]\ncertificate_from = 'vault'\n".into(), "\"internal-ca\""),
    ] {
        let error = load_text(&text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn tls_takes_a_certificate_and_its_key_and_an_https_address_takes_both() {
    let both = "[tls]\ncertificate = 'c.pem'\nkey = '~/k.pem'\n";
    let config = load_text(&format!("listen = ['https://[::]:5443', '[::1]:1']\n{both}")).unwrap();
    assert_ne!(config.tls, default_config().tls);
    assert_eq!(config.listen[0].to_string(), "https://[::]:5443");
    for (text, why) in [
        ("tls.certificate = 'c.pem'", "tls.certificate = \"c.pem\": it takes both"),
        ("tls.key = 'k.pem'", "tls.key = \"k.pem\": it takes both"),
        ("listen = ['https://[::1]:1']", "https://[::1]:1 has no certificate to show"),
        ("tls.certificat = 'c.pem'", "did you mean tls.certificate?"),
    ] {
        let error = load_text(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn every_setting_is_used() {
    for (key, value) in [
        ("data_dir", "'/x'"),
        ("listen", "['[::1]:1', 'unix:/run/s', 'systemd']"),
        ("socket_mode", "'0600'"),
        ("store", "'none'"),
        ("landing_page", "false"),
        ("status_for", "'loopback'"),
        ("cache.default.priority", "41"),
        ("cache.default.want_mass_query", "false"),
        ("cache.default.sources", "['store']"),
        ("cache.default.signing_keys", "['k', '~/l']"),
        ("cache.default.directory", "'d'"),
        ("cache.default.parts", "['/tank/n2']"),
        ("cache.default.peers", "['http://n2:5000']"),
        ("cache.default.upstreams", "[{ url = 'https://cache.nixos.org' }]"),
        ("cache.default.upstream_deadline", "'10ms'"),
        ("cache.default.upstream_misses_kept", "'0ms'"),
        ("cache.default.heal_from", "['https://cache.nixos.org']"),
        ("cache.default.push", "'open'"),
        ("cache.default.push_open_to_network", "true"),
        ("cache.default.pull", "'token'"),
        ("cache.default.accept", "'trusted'"),
        ("cache.default.trusted_keys", &format!("['{KEY}']")),
        ("cache.default.upstream_keys", "[]"),
        ("cache.default.max_size", "'50G'"),
        ("cache.default.verify_every", "'never'"),
        ("bake.enabled", "false"),
        ("bake.level", "19"),
        ("bake.max_size", "'50G'"),
        ("bake.first_read", "'zstd'"),
        ("limits.connections", "1"),
        ("limits.connections_per_ip", "1"),
        ("limits.head_timeout", "'100ms'"),
        ("limits.idle_timeout", "'1m'"),
        ("limits.body_timeout", "'1s'"),
        ("limits.stall_timeout", "'1s'"),
        ("limits.drain_timeout", "'1h'"),
        ("limits.blocking_threads", "1"),
        ("limits.narinfo_cache_bytes", "0"),
        ("limits.sqlite_deadline", "'1ms'"),
        ("limits.max_nar_size", "'1M'"),
        ("limits.max_nar_depth", "63"),
        ("limits.max_nar_entries", "1"),
        ("limits.max_listing_entries", "0"),
        ("limits.max_ratio", "1"),
        ("limits.decoder_memory", "'64M'"),
        ("limits.uploads", "1"),
        ("limits.uploads_per_client", "1"),
        ("limits.pending_age", "'1m'"),
        ("log.format", "'json'"),
        ("log.level", "'trace'"),
        ("log.requests", "true"),
        ("store.root", "'/chroot'"),
        ("store.store_dir", "'/gnu/store'"),
        ("store.state_dir", "'/s'"),
        ("store.log_dir", "'/l'"),
    ] {
        let config = load_text(&format!("{key} = {value}")).unwrap();
        assert_ne!(config, default_config(), "{key}");
    }
}

#[test]
fn mistakes_are_one_line_that_says_what_is_allowed() {
    for (text, message) in [
        ("lisen = []", "lisen is not a setting; did you mean listen?"),
        (
            "[limits]\nhead_timout = '1s'",
            "limits.head_timout is not a setting; did you mean limits.head_timeout?",
        ),
        (
            "[cache.a]\nprio = 1",
            "cache.a.prio is not a setting; `snowbank serve --print-example-config` shows them all",
        ),
        (
            "frobnicate = 1",
            "frobnicate is not a setting; `snowbank serve --print-example-config` shows them all",
        ),
        ("limits = 3", "limits = 3: a table is expected: [limits] and its settings below it"),
        ("cache.a = 3", "cache.a = 3: a table is expected: [cache.a] and its settings below it"),
        ("listen = []", "listen = []: at least one address is expected"),
        ("bake.level = 20", "bake.level = 20: a whole number from 1 to 19 is expected"),
        (
            "bake.first_read = 'xz'",
            "bake.first_read = \"xz\": one of \"plain\", \"zstd\" is expected",
        ),
        ("log.requests = 'yes'", "log.requests = \"yes\": true or false is expected"),
        ("store = 'non'", "store = \"non\": \"auto\", \"none\", a directory such as"),
        ("socket_mode = '999'", "socket_mode = \"999\": a file mode in octal is expected"),
        ("cache.state.priority = 1", "cache = \"state\": this name is taken"),
        ("[cache.'a/b']", "cache = \"a/b\": the name of a cache is 1 to 63"),
        (
            "store = 'none'\ncache.a.sources = ['store']",
            "cache.a.sources = \"store\": there is no local store",
        ),
        (
            "cache.a.push = 'opne'",
            "cache.a.push = \"opne\": one of \"none\", \"token\", \"mtls\", \"open\" is expected",
        ),
        ("cache.a.push = 'mtls'", "cache.a.push = \"mtls\": nobody could show a certificate"),
        ("cache.a.pull = 'mtls'", "cache.a.pull = \"mtls\": nobody could show a certificate"),
        (
            "cache.a.trusted_keys = ['a-1:AAAA']",
            "cache.a.trusted_keys = \"a-1:AAAA\": a public key is expected, name:base64",
        ),
        ("cache.a.max_size = 0", "cache.a.max_size = 0: a size in bytes is expected"),
        ("limits.max_nar_depth = 65", "limits.max_nar_depth = 65: a whole number from 1 to 64"),
        ("cache.a.directory = 'default'", "another cache has this directory"),
        (
            "cache.a.parts = ['default']",
            "cache.a.parts = \"/home/user/.local/share/snowbank/default\": this is the directory of a",
        ),
        ("cache.a.parts = ['/p', '/p']", "cache.a.parts = \"/p\": the same part stands here twice"),
        (
            "cache.a.heal_from = ['h:5000']",
            "cache.a.heal_from = \"h:5000\": the address of a cache is expected, http://HOST[:PORT]",
        ),
        (
            "cache.a.heal_from = ['http://h', 'http://h/']",
            "cache.a.heal_from = \"http://h/\": the same cache stands here twice",
        ),
        ("cache.a.parts = '/p'", "cache.a.parts = \"/p\": a list is expected"),
        (
            "limits.head_timeout = '1ms'",
            "limits.head_timeout = \"1ms\": a time is expected, such as",
        ),
    ] {
        let error = load_text(text).unwrap_err();
        assert!(error.starts_with("/etc/snowbank.toml: "), "{error}");
        assert!(error.contains(message) && !error.contains('\n'), "{error}\nfor {text}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_named_with_its_line() {
    let error = load_text("data_dir = '/x'\nlisten = [\n").unwrap_err();
    assert!(error.starts_with("/etc/snowbank.toml:"), "{error}");
    assert!(error.contains("not valid TOML") && !error.contains('\n'), "{error}");
    let error = load_text("data_dir = 1\ndata_dir = 2\n").unwrap_err();
    assert!(error.starts_with("/etc/snowbank.toml:2: not valid TOML: "), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let overrides =
        Overrides { config: Some("/nonexistent/s.toml".into()), ..Overrides::default() };
    let error = load(&overrides, &Environment { lookup: &|_| None, is_root: true }).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/s.toml: cannot read"), "{error}");
}

#[test]
fn environment_wins_over_the_file_and_a_flag_over_both() {
    let text = "data_dir = '/file'\nlisten = ['127.0.0.1:1']\nstore = 'none'";
    let variables = [
        ("SNOWBANK_DATA_DIR", "env"),
        ("SNOWBANK_LISTEN", "127.0.0.1:2, unix:/run/s"),
        ("SNOWBANK_STORE", "auto"),
    ];
    let config = load_with(text, &Overrides::default(), &variables).unwrap();
    assert_eq!(config.data_dir, Path::new("/work/env"));
    assert_eq!(config.listen.len(), 2);
    assert!(config.store.is_some());

    let flags = Overrides {
        data_dir: Some("flag".into()),
        listen: vec!["127.0.0.1:3".into()],
        store: Some("none".into()),
        ..Overrides::default()
    };
    let config = load_with(text, &flags, &variables).unwrap();
    assert_eq!(config.data_dir, Path::new("/work/flag"));
    assert_eq!(config.listen, ["127.0.0.1:3".parse::<ListenAddress>().unwrap()]);
    assert_eq!(config.store, None);
    assert_eq!(config.caches[0].sources, [Source::Bank]);
}

#[test]
fn a_mistake_outside_the_file_names_the_variable_or_the_flag() {
    let error = load_with("", &Overrides::default(), &[("SNOWBANK_LISTEN", "x")]).unwrap_err();
    assert!(
        error.starts_with("SNOWBANK_LISTEN: listen = \"x\": an address is expected"),
        "{error}"
    );
    let flags = Overrides { store: Some("x".into()), ..Overrides::default() };
    let error = load_with("", &flags, &[]).unwrap_err();
    assert!(error.starts_with("--store: store = \"x\": "), "{error}");
}

#[test]
fn the_automatic_store_is_the_one_nix_would_use() {
    let variables =
        [("NIX_STORE_DIR", "/n/store"), ("NIX_STATE_DIR", "/n/state"), ("NIX_LOG_DIR", "")];
    let store = load_with("", &Overrides::default(), &variables).unwrap().store.unwrap();
    assert_eq!(store.store_dir.as_str(), "/n/store");
    assert_eq!(store.state_dir, Path::new("/n/state"));
    assert_eq!(store.log_dir, Path::new("/nix/var/log/nix"));
    assert!(store.optional);
}

#[test]
fn a_chroot_store_keeps_its_logical_name() {
    let store = load_text("store = '/srv/root'").unwrap().store.unwrap();
    assert_eq!(store.store_dir.as_str(), "/nix/store");
    assert_eq!(store.real_store_dir, Path::new("/srv/root/nix/store"));
    assert_eq!(store.state_dir, Path::new("/srv/root/nix/var/nix"));
    assert!(!store.optional);
    let table = load_text("store = { root = '/srv/root' }").unwrap().store.unwrap();
    assert_eq!(table, store);
}

#[test]
fn named_caches_have_only_their_bank_and_follow_the_default_one() {
    let config = load_text("[cache.b]\n[cache.a]\nsigning_keys = ['k']").unwrap();
    let names: Vec<_> = config.caches.iter().map(|cache| cache.name.as_str()).collect();
    assert_eq!(names, ["default", "a", "b"]);
    assert_eq!(config.caches[1].sources, [Source::Bank]);
    assert_eq!(config.caches[1].signing_keys, [SigningKey::File("/etc/k".into())]);
    assert_eq!(config.caches[2].directory, Path::new("/home/user/.local/share/snowbank/b"));
}

#[test]
fn a_cache_takes_no_pushes_and_is_public_until_it_is_told_otherwise() {
    let cache = default_config().caches.remove(0);
    assert_eq!(
        (cache.push, cache.pull, cache.accept, cache.max_size),
        (PushPolicy::None, PullPolicy::Public, Accept::Pusher, None)
    );
    assert_eq!(cache.upstream_keys, [PublicKey::parse(KEY).unwrap()]);
}

#[test]
fn an_open_cache_on_the_network_has_to_be_said_twice() {
    for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "systemd"] {
        let text = format!("listen = ['127.0.0.1:2', '{listen}']\ncache.a.push = 'open'");
        let error = load_text(&text).unwrap_err();
        for part in
            ["cache.a.push = \"open\": ", listen, "\"token\"", "push_open_to_network = true"]
        {
            assert!(error.contains(part) && !error.contains('\n'), "no {part} in {error}");
        }
        let config = load_text(&format!("{text}\ncache.a.push_open_to_network = true")).unwrap();
        assert_eq!(config.caches[1].push, PushPolicy::Open);
    }
    let here = "listen = ['127.9.9.9:1', '[::1]:1', '[::ffff:127.0.0.1]:1', 'unix:/run/s']";
    let config = load_text(&format!("{here}\ncache.a.push = 'open'")).unwrap();
    assert_eq!(config.caches[1].push, PushPolicy::Open);
}

#[test]
fn a_variable_sets_who_may_push_to_the_default_cache_and_to_no_other() {
    let text = "cache.default.push = 'none'\ncache.a.push = 'none'";
    let config = load_with(text, &Overrides::default(), &[("SNOWBANK_PUSH", "token")]).unwrap();
    assert_eq!(
        (config.caches[0].push, config.caches[1].push),
        (PushPolicy::Token, PushPolicy::None)
    );
    let variables = [("SNOWBANK_PUSH", "open"), ("SNOWBANK_LISTEN", "0.0.0.0:1")];
    let error = load_with(text, &Overrides::default(), &variables).unwrap_err();
    assert!(error.starts_with("SNOWBANK_PUSH: cache.default.push = \"open\": "), "{error}");
}

fn at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

#[test]
fn a_command_works_on_the_store_that_nix_would_with_the_same_words() {
    let lookup = |name: &str| (name == "NIX_STORE_DIR").then(|| "/n/store".into());
    let environment = Environment { lookup: &lookup, is_root: false };
    let own = store_of_command(None, &environment).unwrap();
    assert_eq!(
        (own.store_dir.as_str(), own.real_store_dir.to_str()),
        ("/n/store", Some("/n/store"))
    );
    let chroot = store_of_command(Some(Path::new("/root")), &environment).unwrap();
    assert_eq!(chroot.store_dir.as_str(), "/n/store");
    assert_eq!(chroot.real_store_dir, Path::new("/root/nix/store"));
    assert_eq!(chroot.database_dir(), Path::new("/root/nix/var/nix/db"));
}
