//! An authority that `snowbank ca` makes.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    authority::Issued,
    command,
    nix::{Outcome, Scratch, run, tempdir},
    snowbank,
};

pub(crate) struct Ca {
    own: Scratch,
}

impl Ca {
    /// `words` are those of `ca init`.
    #[track_caller]
    pub(crate) fn init(words: &[&str]) -> Self {
        let ca = Self::nowhere();
        ca.run(&[&["init"], words].concat()).expect_success();
        ca
    }

    /// One that is yet to be made.
    pub(crate) fn nowhere() -> Self {
        Self { own: tempdir() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.own.path().join("ca")
    }

    /// The directory that it lies in, where what it issues goes.
    pub(crate) fn around(&self) -> &Path {
        self.own.path()
    }

    /// `snowbank ca` with these words, where the authority lies.
    pub(crate) fn order(&self, words: &[&str]) -> Command {
        let mut order = command(snowbank());
        order.current_dir(self.around()).arg("ca").args(words).args(["--dir", "ca"]);
        order
    }

    pub(crate) fn run(&self, words: &[&str]) -> Outcome {
        run(&mut self.order(words), 30)
    }

    /// `words` are those of `ca issue`.
    #[track_caller]
    pub(crate) fn issue(&self, words: &[&str]) -> Issued {
        let text = self.run(&[&["issue"], words].concat()).expect_success().text();
        let mut files = text.lines().map(PathBuf::from);
        Issued { certificate: files.next().unwrap(), key: files.next().unwrap() }
    }

    /// What hosts trust, as `ca bundle` prints it.
    #[track_caller]
    pub(crate) fn bundle(&self) -> PathBuf {
        let file = self.own.path().join("bundle.pem");
        let text = self.run(&["bundle"]).expect_success().text();
        std::fs::write(&file, text).unwrap();
        file
    }
}
