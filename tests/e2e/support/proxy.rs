//! A proxy between client and server that cuts or holds a connection after a number of bytes, once.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use super::{PATIENCE, wait_until};

/// What to do when `after` bytes of one answer have gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Close the connection on both sides.
    Cut {
        after: usize,
    },
    /// Let nothing through any more until [`FaultProxy::release`].
    Hold {
        after: usize,
    },
}

struct State {
    server: SocketAddr,
    fault: Fault,
    holding: bool,
    happened: bool,
    // All that clients have sent.
    requests: Vec<u8>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The proxy. Its threads end with the process: they are all waiting for sockets of this process.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl FaultProxy {
    pub(crate) fn before(server: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { server, fault, holding: false, happened: false, requests: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || serve(client, &shared));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The server that connections from now on go to.
    pub(crate) fn point_at(&self, server: SocketAddr) {
        self.shared.state.lock().unwrap().server = server;
    }

    #[track_caller]
    pub(crate) fn wait_for_the_fault(&self) {
        wait_until("the fault proxy to have cut or held a connection", PATIENCE, || {
            self.has_happened()
        });
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.shared.state.lock().unwrap().happened
    }

    /// Let what is held go on.
    pub(crate) fn release(&self) {
        self.shared.state.lock().unwrap().holding = false;
        self.shared.changed.notify_all();
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        let state = self.shared.state.lock().unwrap();
        let all = String::from_utf8_lossy(&state.requests).into_owned();
        all.split("\r\n\r\n").filter(|head| !head.is_empty()).map(str::to_owned).collect()
    }
}

fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let server = shared.state.lock().unwrap().server;
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    let upwards = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let requests = Arc::clone(shared);
    thread::spawn(move || {
        let (mut from, mut to) = upwards;
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            requests.state.lock().unwrap().requests.extend_from_slice(&buffer[..count]);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    pass_answers(server, client, shared);
}

/// Pass what the server sends. All bytes of one connection count, heads too.
fn pass_answers(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut passed = 0;
    let mut buffer = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        passed += count;
        let mut state = shared.state.lock().unwrap();
        match state.fault {
            Fault::Cut { after } if passed > after => {
                state.fault = Fault::None;
                state.happened = true;
                break;
            }
            Fault::Hold { after } if passed > after => {
                state.fault = Fault::None;
                state.happened = true;
                state.holding = true;
                while state.holding {
                    state = shared.changed.wait(state).unwrap();
                }
            }
            Fault::None | Fault::Cut { .. } | Fault::Hold { .. } => {}
        }
        drop(state);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
