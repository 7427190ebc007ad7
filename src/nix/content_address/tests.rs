//! The paths and addresses here were made by a real Nix, 2.26.3 and where it says so 2.8.0, in a chroot
//! store of its own: `nix store add-path`, `nix store add-file`, `builtins.toFile` and `nix-build` of
//! derivations whose builder is `/bin/sh -c "echo … > $out"`; the addresses are those that
//! `nix path-info --json` shows.

use proptest::prelude::*;

use super::*;
use crate::nix::nar::testing::Tree;

/// A path as Nix has it: its content address, its references and what is in it.
struct Made {
    path: &'static str,
    ca: &'static str,
    references: &'static [&'static str],
    tree: Tree,
}

const NOTE: &str = "vwhy46c56yn92fwsksdsmq7swizrzzh1-note";
const SELF: &str = "brzx225sz0ad5zfqw464a40qn5cc2sjr-self";
const OLD_SELF: &str = "ykxq1brzfyijxagq3l8ck47milr1ndlq-self";
const BOTH: &str = "q1yq9jada6jga97vzalcdf4wm868fsaj-both";
const OLD_BOTH: &str = "ics3j9mw6ccxk79kfy248g2blhq4jp95-both";

fn of_itself(path: &str) -> Tree {
    Tree::file(&format!("me: /nix/store/{path}, twice /nix/store/{path}\n"))
}

fn of_both(path: &str) -> Tree {
    let other = format!("other /nix/store/{NOTE}");
    Tree::file(&format!("me: /nix/store/{path}, twice /nix/store/{path}, {other}\n"))
}

fn all() -> Vec<Made> {
    let made = |path, ca, references, tree| Made { path, ca, references, tree };
    let tree = Tree::directory([("file", Tree::file("hello\n")), ("link", Tree::symlink("file"))]);
    vec![
        made(
            "zq63wbwj5qdp837ppnqznzn198ri2fy4-tree",
            "fixed:r:sha256:0fx9r754id469x821nmciwc4b7w4z9sg8ws42m25nmgw218w1g7q",
            &[],
            tree,
        ),
        made(
            "b5wwwb7jdacbwx5qy8i44ilbm7pjv1xp-one.txt",
            "fixed:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
            &[],
            Tree::file("abc"),
        ),
        made(
            NOTE,
            "text:sha256:19hyd1ia8nwcby9mgzv17zfn660hcfwvg8513bcbsxmjszf5ygm2",
            &[],
            Tree::file("some text\n"),
        ),
        made(
            "isvrlfsqqrbvxav24gi1kn8000i3ic7b-flat256",
            "fixed:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
            &[],
            Tree::file("abc"),
        ),
        made(
            "japj0nydabffsr2aravqs4wxzr437wlh-flatsha1",
            "fixed:sha1:kpcd173cq987hw957sx6m0868wv3x6d9",
            &[],
            Tree::file("abc"),
        ),
        made(
            "gxgyf4ys3zkj9d0312rg194d1xij3v0m-flatmd5",
            "fixed:md5:3jgzhjhz9zjvbb0kyj7jc500ch",
            &[],
            Tree::file("abc"),
        ),
        made(
            "qz82bvj4kk17x5d0ahyayp08zgvkmmdl-flat512",
            "fixed:sha512:2gs8k559z4rlahfx0y688s49m2vvszylcikrfinm30ly9rak69236nkam5ydvly1ai7xac9\
             9vxfc4ii84hawjbk876blyk1jfhkbbyx",
            &[],
            Tree::file("abc"),
        ),
        made(
            "j8xj8i2l17gsadk6mdqx0954b82w2w4w-rec512",
            "fixed:r:sha512:11gqwrzqd486x5c4rp9djll8cg45pw0ylbk5w1c40qwa4fsfvdlfia0iifj8lamqsgvd0\
             d9w603m06prb043gg9hb8l0xmf5md4jsc8",
            &[],
            Tree::file("abc\n"),
        ),
        made(
            "y5np038la00xaj0ch2lixrl101kfls43-rec1",
            "fixed:r:sha1:93cy7kafbb0c32dbhxixyafxhj2cpmwb",
            &[],
            Tree::file("abc\n"),
        ),
        made(
            "1g0nycrnx8qcsanvq293hsq7ldg3iyp3-none",
            "fixed:r:sha256:091n65j86h05249pbnryipljh6br79660x0fpdpjyz5gzk8gp3ad",
            &[],
            Tree::file("nothing\n"),
        ),
        made(
            "qvdsayr4i0hf52ykqx9mab1pbdag8w7g-ref",
            "fixed:r:sha256:127d37xv1f19f6mn61n3adfjmn05vy1mifwfzzmglvnmn6jsq1yn",
            &[NOTE],
            Tree::file(&format!("other /nix/store/{NOTE}\n")),
        ),
        made(
            SELF,
            "fixed:r:sha256:05wnkxhi30askl8jnf4gz2hdiicdr6pghwwzhyp6sbslg3y9ac7n",
            &[SELF],
            of_itself(SELF),
        ),
        made(
            BOTH,
            "fixed:r:sha256:1ricqa2c5b801v7xg7pfw537hdb28sbxz4932qxsfr0s6hj5qj40",
            &[BOTH, NOTE],
            of_both(BOTH),
        ),
        // By Nix 2.8.0.
        made(
            OLD_SELF,
            "fixed:r:sha256:0i3v0vbmrcl297ylyhhdx84r7bcih3ssh9vwlb6hsgzmmibg6i1m",
            &[OLD_SELF],
            of_itself(OLD_SELF),
        ),
        made(
            OLD_BOTH,
            "fixed:r:sha256:15n1rs2dk9qa4673sw96s78mi71mzlyqc5a00dmdmkqksp7lz02i",
            &[OLD_BOTH, NOTE],
            of_both(OLD_BOTH),
        ),
    ]
}

fn path(text: &str) -> StorePath {
    StorePath::parse(text).unwrap()
}

fn paths(texts: &[&str]) -> Vec<StorePath> {
    texts.iter().copied().map(path).collect()
}

fn verify_pieces<'a>(
    name: &str,
    ca: &str,
    references: &[StorePath],
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<(), ContentAddressError> {
    let claim = ContentAddress::parse(ca)?;
    let mut verifier = Verifier::new(claim, &path(name), references, &StoreDir::default())?;
    for piece in pieces {
        verifier.push(piece)?;
    }
    verifier.finish()
}

fn verify(
    name: &str,
    ca: &str,
    references: &[&str],
    nar: &[u8],
) -> Result<(), ContentAddressError> {
    verify_pieces(name, ca, &paths(references), [nar].into_iter())
}

#[test]
fn what_nix_made_is_what_it_claims_to_be() {
    for Made { path, ca, references, tree } in all() {
        assert_eq!(verify(path, ca, references, &tree.nar()), Ok(()), "{path}");
        assert_eq!(ContentAddress::parse(ca).unwrap().to_string(), ca);
    }
}

#[test]
fn a_nar_that_does_not_speak_of_itself_is_known_by_its_nar_hash() {
    let known: Vec<_> = all()
        .into_iter()
        .filter(|made| {
            let hash = Sha256::of(&made.tree.nar());
            ContentAddress::parse(made.ca).unwrap().is_nar_hash(hash)
        })
        .map(|made| &made.path[33..])
        .collect();
    assert_eq!(known, ["tree", "none", "ref"]);
}

#[test]
fn other_content_another_name_and_other_references_are_noticed() {
    for Made { path, ca, references, tree } in all() {
        let nar = tree.nar();
        // The last byte of the contents, or of the symlink's target.
        let mut other = nar.clone();
        let at = other.iter().rposition(|byte| byte.is_ascii_lowercase()).unwrap();
        other[at] ^= 1;
        let error = verify(path, ca, references, &other).unwrap_err();
        assert!(matches!(error, ContentAddressError::Content { .. }), "{path}: {error}");
        assert!(error.to_string().contains(ca), "{error}");

        let renamed = format!("{path}x");
        let error = verify(&renamed, ca, &[], &nar).unwrap_err();
        assert!(matches!(error, ContentAddressError::Path { .. }), "{path}: {error}");

        let more = [references, &["7rjj86a50146dq4pd5h2fyvnnwxk9m0a-glibc"]].concat();
        let error = verify(path, ca, &more, &nar).unwrap_err();
        let noticed = matches!(
            error,
            ContentAddressError::Path { .. } | ContentAddressError::References { .. }
        );
        assert!(noticed, "{path}: {error}");
        if !references.is_empty() {
            let error = verify(path, ca, &[], &nar).unwrap_err();
            assert!(matches!(error, ContentAddressError::Path { .. }), "{path}: {error}");
        }
        let other_store = StoreDir::parse("/gnu/store").unwrap();
        let claim = ContentAddress::parse(ca).unwrap();
        let path = StorePath::parse(path).unwrap();
        let error = claim.check_path(&path, &paths(references), &other_store).unwrap_err();
        assert!(matches!(error, ContentAddressError::Path { .. }), "{path}: {error}");
    }
}

#[test]
fn a_hash_of_a_file_is_only_of_a_file() {
    let made = all().into_iter().find(|made| made.path == NOTE).unwrap();
    let program = Tree::File { executable: true, contents: b"some text\n".to_vec() };
    for tree in [program, Tree::symlink("x"), Tree::directory([("note", made.tree.clone())])] {
        let error = verify(NOTE, made.ca, &[], &tree.nar()).unwrap_err();
        assert!(matches!(error, ContentAddressError::NotAFile(_)), "{error}");
    }
    let nar = made.tree.nar();
    let error = verify(NOTE, made.ca, &[], &nar[..nar.len() - 1]).unwrap_err();
    assert!(matches!(error, ContentAddressError::Nar(_)), "{error}");
}

#[test]
fn a_text_cannot_refer_to_itself() {
    let made = all().into_iter().find(|made| made.path == NOTE).unwrap();
    let error = verify(NOTE, made.ca, &[NOTE], &made.tree.nar()).unwrap_err();
    assert!(matches!(error, ContentAddressError::References { .. }), "{error}");
}

#[test]
fn the_digits_may_be_written_in_each_way() {
    let nix32 =
        ContentAddress::parse("fixed:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s");
    for text in [
        "fixed:sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "fixed:sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
    ] {
        assert_eq!(ContentAddress::parse(text), nix32, "{text}");
    }
}

#[test]
fn what_is_not_verified_is_said_to_be_so() {
    for text in [
        "fixed:git:sha1:kpcd173cq987hw957sx6m0868wv3x6d9",
        "fixed:blake3:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        "fixed:r:blake3:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
    ] {
        let error = verify(NOTE, text, &[], b"").unwrap_err();
        assert_eq!(error, ContentAddressError::Unverifiable(text.into()));
    }
}

#[test]
fn what_nix_would_not_write_is_refused() {
    for text in [
        "",
        "fixed",
        "fixed:",
        "fixed:r:",
        "fixed:sha256",
        "fixed:sha256:",
        "fixed:sha256:abc",
        "fixed:r:r:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        "fixed:sha384:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        "fixed:md5:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        "fixed:sha256:zb8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        "text:sha1:kpcd173cq987hw957sx6m0868wv3x6d9",
        "text:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
        "TEXT:sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s",
    ] {
        let error = ContentAddress::parse(text).unwrap_err();
        assert!(matches!(error, ContentAddressError::Malformed(_)), "{text:?}: {error}");
    }
}

proptest! {
    #[test]
    fn it_does_not_matter_how_the_nar_is_cut(
        which in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let all = all();
        let Made { path, ca, references, tree } = &all[which.index(all.len())];
        let (nar, references) = (tree.nar(), paths(references));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(nar.len() + 1)).collect();
        cuts.extend([0, nar.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &nar[cut[0]..cut[1]]);
        prop_assert_eq!(verify_pieces(path, ca, &references, pieces), Ok(()));
        prop_assert_eq!(verify_pieces(path, ca, &references, nar.chunks(1)), Ok(()));
    }
}
