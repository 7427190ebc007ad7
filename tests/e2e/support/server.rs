//! The real server, as a child process on a port of its own.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use super::{
    PATIENCE, command,
    http::{Connection, Response},
    nix::{Scratch, Store, tempdir},
    snowbank, wait_for,
};

/// How to start a server.
pub(crate) struct Setup {
    data: PathBuf,
    own: Option<Scratch>,
    listen: Vec<String>,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    wrapper: Vec<String>,
}

impl Setup {
    /// A server with nothing but an empty data directory.
    pub(crate) fn bare() -> Self {
        Self::within(tempdir())
    }

    /// The same, with the data directory below this one, which goes when the server does.
    pub(crate) fn within(own: Scratch) -> Self {
        let mut setup = Self::on(&own.path().join("data"));
        setup.own = Some(own);
        setup
    }

    /// A server on a data directory that the test keeps.
    pub(crate) fn on(data: &Path) -> Self {
        Self {
            data: data.to_path_buf(),
            own: None,
            listen: vec!["127.0.0.1:0".to_owned()],
            arguments: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Serve this local store live.
    pub(crate) fn local_store(mut self, store: &Store) -> Self {
        self.arguments.extend(["--store", "auto"].map(OsString::from));
        self.with_environment_of(store)
    }

    /// Serve the bank only. The store directory is still that of `store`.
    pub(crate) fn bank_only(mut self, store: &Store) -> Self {
        self.arguments.extend(["--store", "none"].map(OsString::from));
        self.with_environment_of(store)
    }

    fn with_environment_of(mut self, store: &Store) -> Self {
        for (key, value) in store.environment() {
            self = self.environment(key, value);
        }
        self
    }

    pub(crate) fn listen(mut self, addresses: &[&str]) -> Self {
        self.listen = addresses.iter().map(|&address| address.to_owned()).collect();
        self
    }

    pub(crate) fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn environment(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((key.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Start the server through a shell that runs `script` first, in the same process.
    pub(crate) fn after_shell(mut self, script: &str) -> Self {
        self.wrapper =
            ["sh", "-c", &format!("{script}\nexec \"$0\" \"$@\"")].map(str::to_owned).to_vec();
        self
    }

    /// The order as it stands, for tests of how a start fails.
    pub(crate) fn order(&self) -> Command {
        raise_open_files();
        let mut words: Vec<OsString> = self.wrapper.iter().map(OsString::from).collect();
        words.extend([snowbank().into_os_string(), "serve".into()]);
        words.extend(["--data-dir".into(), self.data.clone().into_os_string()]);
        for address in &self.listen {
            words.extend(["--listen", address].map(OsString::from));
        }
        words.extend(self.arguments.iter().cloned());
        let mut order = command(&words[0]);
        order
            .args(&words[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        order.envs(self.environment.iter().map(|(key, value)| (key, value)));
        order
    }

    /// Start it and wait until it says that it listens on every address.
    #[track_caller]
    pub(crate) fn start(self) -> Server {
        let expected = self.listen.len();
        self.start_with(Stdio::null(), expected)
    }

    /// The same, with something of the test's as standard input, and so many addresses to wait for.
    #[track_caller]
    pub(crate) fn start_with(self, input: Stdio, expected: usize) -> Server {
        self.try_start(input, expected).unwrap_or_else(|(status, said)| {
            panic!("the server ended with {status} instead of listening:\n{said}")
        })
    }

    /// The same for a server that may refuse: then with what and saying what.
    #[track_caller]
    pub(crate) fn try_start(
        self,
        input: Stdio,
        expected: usize,
    ) -> Result<Server, (ExitStatus, String)> {
        let mut child = self
            .order()
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("the server cannot be started: {error}"));
        let said = Arc::new(Mutex::new(Said::default()));
        follow(child.stdout.take().unwrap(), Arc::clone(&said), |said| &mut said.output);
        follow(child.stderr.take().unwrap(), Arc::clone(&said), |said| &mut said.errors);
        let mut server =
            Server { child, said, addresses: Vec::new(), data: self.data, _own: self.own };
        let start = Instant::now();
        while server.lines_after("listening on ").len() < expected {
            if let Some(status) = server.child.try_wait().unwrap() {
                // What it said last may still be on its way through the pipes.
                wait_for("the end of its output", PATIENCE, || {
                    (Arc::strong_count(&server.said) == 1).then_some(())
                });
                return Err((status, server.log()));
            }
            assert!(start.elapsed() < PATIENCE, "the server does not listen:\n{}", server.log());
            thread::sleep(Duration::from_millis(5));
        }
        server.addresses = server
            .lines_after("listening on ")
            .iter()
            .filter_map(|line| {
                line.trim().strip_prefix("http://")?.trim_end_matches('/').parse().ok()
            })
            .collect();
        Ok(server)
    }
}

/// As many open files as this process may have at all: the tests of overload need thousands of sockets, and they
/// run beside others.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Where that is not allowed, the tests that need it say so themselves.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

#[derive(Default)]
struct Said {
    output: Vec<String>,
    errors: Vec<String>,
}

fn follow(
    from: impl Read + Send + 'static,
    said: Arc<Mutex<Said>>,
    into: fn(&mut Said) -> &mut Vec<String>,
) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into(&mut said.lock().unwrap()).push(line);
        }
    });
}

/// A server that runs. It ends with the value; what it logged is printed when the test fails.
pub(crate) struct Server {
    child: Child,
    said: Arc<Mutex<Said>>,
    addresses: Vec<SocketAddr>,
    data: PathBuf,
    _own: Option<Scratch>,
}

impl Server {
    /// The first TCP address.
    pub(crate) fn address(&self) -> SocketAddr {
        *self.addresses.first().expect("the server listens on a TCP address")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of the default cache.
    pub(crate) fn bank(&self) -> PathBuf {
        self.data.join("default")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What follows `words` on each line of standard output that begins so.
    pub(crate) fn lines_after(&self, words: &str) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.output
            .iter()
            .filter_map(|line| line.trim().strip_prefix(words))
            .map(str::to_owned)
            .collect()
    }

    /// The value that the server says to put into nix.conf.
    #[track_caller]
    pub(crate) fn nix_conf(&self, setting: &str) -> String {
        wait_for(&format!("a line `{setting} = …` on standard output"), PATIENCE, || {
            self.lines_after(&format!("{setting} = ")).first().map(|value| value.trim().to_owned())
        })
    }

    /// The public key, as trusted-public-keys wants it.
    #[track_caller]
    pub(crate) fn key(&self) -> String {
        self.nix_conf("trusted-public-keys")
    }

    /// All it said, for a failure's message and for tests of the log.
    pub(crate) fn log(&self) -> String {
        let said = self.said.lock().unwrap();
        [said.output.join("\n"), said.errors.join("\n")].join("\n")
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    /// GET on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.connect().request("GET", path, &[])
    }

    #[track_caller]
    pub(crate) fn head(&self, path: &str) -> Response {
        self.connect().request("HEAD", path, &[])
    }

    /// The sum of a metric over those of its series whose labels contain `labels`; 0 when there is none.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.get("/metrics").expect(200).text();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (of, rest) = series.split_once('{').unwrap_or((series, ""));
                (of == name && rest.contains(labels)).then(|| value.parse::<f64>().unwrap())
            })
            .sum()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Wait for it to end by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_for("the server to end", limit, || self.child.try_wait().unwrap())
    }

    /// SIGTERM, and a clean end.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.stop_and_keep(|| ());
    }

    /// The same, and then look at what it left behind before its directory goes.
    #[track_caller]
    pub(crate) fn stop_and_keep(mut self, look: impl FnOnce()) {
        self.signal(Signal::TERM);
        let status = self.wait(PATIENCE);
        assert!(status.success(), "after SIGTERM the server ended with {status}:\n{}", self.log());
        look();
    }

    /// SIGKILL: as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[track_caller]
    pub(crate) fn assert_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the server has ended with {ended:?}:\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the server said:\n{}\n---", self.log());
        }
    }
}
