//! Which room knows which: the table at the top of `src/lib.rs`, read off the sources.
//!
//! Reads `use` trees and paths in the code, not in comments, texts or test modules, and resolves `self`, `super` and
//! `crate` by the place of the file. What macros build out of pieces, it does not see.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{fs, path::Path};

/// `inside` never mentions `never`. A path of the code is meant by its beginning; one that begins with a type's name
/// is met anywhere, `a!` is a macro, and `*` stands for any one name.
struct Rule {
    inside: &'static [&'static str],
    except: &'static [&'static str],
    never: &'static [&'static str],
    allowed: &'static [&'static str],
}

const EVERYWHERE: &[&str] = &["crate"];

const PURE: &[&str] =
    &["tokio", "std::io", "std::fs", "std::net", "std::os", "std::thread", "tracing", "rusqlite"];

const RULES: &[Rule] = &[
    // The model knows nothing but itself; language and planning know the model.
    rule(&["crate::model"], PURE),
    only(&["crate::model"], &["crate::model"]),
    rule(&["crate::protocol", "crate::grants"], PURE),
    only(&["crate::protocol"], &["crate::model", "crate::protocol", "crate::seams::Random"]),
    only(&["crate::grants"], &["crate::model", "crate::protocol", "crate::grants", "crate::seams::Random"]),
    // The ground floor.
    only(&["crate::seams"], &["crate::seams"]),
    only(&["crate::seal"], &["crate::seal", "crate::seams"]),
    only(&["crate::local"], &["crate::local", "crate::seams"]),
    only(&["crate::store"], &["crate::store", "crate::seal", "crate::seams"]),
    only(&["crate::config"], &["crate::config", "crate::model"]),
    rule(&["crate::config"], &["tokio", "rusqlite", "tracing", "std::os", "std::process"]),
    // The agent's rooms.
    rule(
        &["crate::queue"],
        &[
            "tokio",
            "std::net",
            "crate::drivers",
            "crate::transport",
            "crate::link",
            "crate::dispatch",
            "crate::agent",
        ],
    ),
    rule(&["crate::dispatch"], &["rusqlite", "crate::transport", "crate::link", "std::net", "tokio::net"]),
    rule(
        &["crate::drivers"],
        &["rusqlite", "crate::queue", "crate::store", "crate::link", "crate::dispatch", "crate::agent"],
    ),
    rule(
        &["crate::transport"],
        &["rusqlite", "crate::drivers", "crate::queue", "crate::store", "crate::link", "crate::dispatch"],
    ),
    rule(
        &["crate::link"],
        &[
            "rusqlite",
            "crate::queue",
            "crate::store",
            "crate::drivers",
            "crate::dispatch",
            "crate::model::Job",
            "crate::model::Order",
            "crate::model::Outcome",
        ],
    ),
    rule(&["crate::link::machine"], &["tokio::net", "std::net", "crate::seams", "std::io"]),
    Rule {
        inside: EVERYWHERE,
        except: &["crate::cloud", "crate::cli"],
        never: &["crate::cloud"],
        allowed: &[],
    },
    Rule {
        inside: EVERYWHERE,
        except: &["crate::cli", "crate::main"],
        never: &["crate::cli", "print!", "println!", "eprint!", "eprintln!", "dbg!", "std::process::exit"],
        allowed: &[],
    },
    Rule {
        inside: &["crate::cloud"],
        except: &[],
        never: &["crate::agent", "crate::queue", "crate::dispatch", "crate::drivers", "crate::link"],
        // Both ends of the bridges' websocket pump frames the same way.
        allowed: &["crate::link::wire"],
    },
    // Drivers: pure codecs and sessions, and pretend systems that share neither.
    rule(
        &["crate::drivers::*::codec", "crate::drivers::*::session"],
        &[
            "tokio",
            "tracing",
            "std::net",
            "std::io",
            "std::fs",
            "std::thread",
            "Instant::now",
            "crate::seams",
        ],
    ),
    rule(
        &["crate::drivers::*::sim"],
        &["crate::drivers::*::codec", "crate::drivers::*::session", "crate::drivers::*::driver"],
    ),
    Rule {
        inside: EVERYWHERE,
        except: &["crate::sim", "crate::cli", "crate::drivers::*::sim"],
        never: &["crate::sim", "crate::drivers::*::sim"],
        allowed: &[],
    },
    // One owner each.
    Rule {
        inside: EVERYWHERE,
        except: &["crate::store", "crate::queue", "crate::cloud::store"],
        never: &["rusqlite"],
        allowed: &[],
    },
    Rule {
        inside: EVERYWHERE,
        except: &["crate::seams"],
        never: &["rand", "Timestamp::now", "Zoned::now", "SystemTime::now", "getrandom", "Uuid::new_v4"],
        allowed: &[],
    },
    Rule {
        // A task that a simulated crash would not end.
        inside: EVERYWHERE,
        except: &["crate::seams", "crate::cli", "crate::sim", "crate::drivers::*::sim"],
        never: &["tokio::spawn", "tokio::task::spawn"],
        allowed: &[],
    },
];

const fn rule(inside: &'static [&'static str], never: &'static [&'static str]) -> Rule {
    Rule { inside, except: &[], never, allowed: &[] }
}

const fn only(inside: &'static [&'static str], allowed: &'static [&'static str]) -> Rule {
    Rule { inside, except: &[], never: &["crate"], allowed }
}

#[test]
fn every_room_keeps_to_what_it_may_know() {
    let broken = judge(&sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_room_of_the_table_exists_and_every_room_is_in_the_table() {
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let in_table: Vec<_> =
        library.lines().filter_map(|line| Some(line.strip_prefix("//! | [`")?.split_once('`')?.0)).collect();
    let mut modules: Vec<_> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut sorted = in_table.clone();
    sorted.sort_unstable();
    modules.sort_unstable();
    assert_eq!(sorted, modules);
}

#[test]
fn made_up_sources_that_break_a_rule_are_caught() {
    for (module, text, caught) in [
        ("crate::model::job", "use tokio::time::Instant;", "tokio::time::Instant"),
        ("crate::model::job", "use {std::{io::{self, Read}, fmt}};", "std::io::Read"),
        ("crate::model", "fn f() { let t = jiff::Timestamp::now(); }", "jiff::Timestamp::now"),
        ("crate::model::job", "use super::super::queue::Queue;", "crate::queue::Queue"),
        ("crate::protocol", "use crate::{model::Job, store::{Store as S}};", "crate::store::Store"),
        ("crate::queue::store", "use crate::cloud;", "crate::cloud"),
        ("crate::agent", "async fn f() { crate::cloud::serve().await }", "crate::cloud::serve"),
        (
            "crate::agent::core",
            "use crate::drivers::salto_is::sim::Simulator;",
            "crate::drivers::salto_is::sim",
        ),
        ("crate::drivers::salto_is::driver", "use crate::queue::*;", "crate::queue"),
        ("crate::drivers::salto_is::codec", "fn f() { tracing::info!(x = 1); }", "tracing::info"),
        ("crate::drivers::salto_is::session", "fn f() { let n = Instant::now(); }", "Instant::now"),
        ("crate::drivers::salto_is::sim", "use super::codec::encode;", "crate::drivers::salto_is::codec"),
        (
            "crate::drivers::salto_is::sim::wire",
            "use super::super::{session};",
            "crate::drivers::salto_is::session",
        ),
        ("crate::dispatch", "type C = rusqlite::Connection;", "rusqlite::Connection"),
        ("crate::link", "fn f() { println!(\"x\"); }", "println!"),
        ("crate::cloud::api", "use rand::Rng;", "rand::Rng"),
        ("crate::link::dial", "fn f() { let x = ::std::time::SystemTime::now(); }", "SystemTime::now"),
        (
            "crate::queue",
            "#[cfg(test)] mod tests { use tokio::x; } use tokio::sync::mpsc;",
            "tokio::sync::mpsc",
        ),
    ] {
        let broken = judge(&[(module.into(), text.into())]);
        assert!(
            broken.iter().any(|line| line.contains(module) && line.contains(caught)),
            "{module}: {text} should be caught at {caught}: {broken:?}"
        );
    }
}

#[test]
fn made_up_sources_that_keep_the_rules_pass() {
    for (module, text) in [
        ("crate::model::job", "use super::{JobId, Window}; use std::{fmt, str::FromStr};"),
        (
            "crate::model",
            "/// Uses [`crate::queue`] and tokio::time.\n/* use tokio::x; /* rand::y */ */ fn f() {}",
        ),
        (
            "crate::model",
            "const T: &str = \"use tokio::time;\"; const R: &str = r#\"println!(\"rand::x\")\"#;",
        ),
        ("crate::model", "fn f<'a>(x: &'a str) -> char { let _ = '\"'; let _ = b'\\''; 'x' }"),
        (
            "crate::model",
            "#[cfg(test)]\nmod tests { use tokio::x; fn f() { println!(\"{}\", rand::random()) } }",
        ),
        ("crate::model", "#[cfg(test)]\nuse tokio::x;\n#[test]\nfn f() { tokio::spawn(async {}); }"),
        ("crate::cli::status", "fn f() { println!(\"x\"); crate::cloud::x(); }"),
        ("crate::seams::clock", "fn f() { Timestamp::now(); rand::random(); }"),
        ("crate::cloud::store::bridges", "use rusqlite::Connection;"),
        ("crate::drivers::salto_is::sim::server", "use crate::sim::Control; use super::world::World;"),
        ("crate::transport::shell", "fn f() { tokio::time::Instant::now(); }"),
    ] {
        let broken = judge(&[(module.into(), text.into())]);
        assert!(broken.is_empty(), "{text}: {broken:?}");
    }
}

/// Every source file with the module it is.
fn sources(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Test modules in files of their own.
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            if path.extension().is_none_or(|extension| extension != "rs") || is_test {
                continue;
            }
            let inner = path.strip_prefix(root).unwrap().with_extension("");
            let parts = inner.iter().map(|part| part.to_str().unwrap());
            let parts: Vec<_> = parts.filter(|part| !["mod", "lib"].contains(part)).collect();
            let module = std::iter::once("crate").chain(parts).collect::<Vec<_>>().join("::");
            found.push((module, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(found.len() > 20, "the sources are not at {}", root.display());
    found.sort();
    found
}

/// What breaks a rule, one line each.
fn judge(sources: &[(String, String)]) -> Vec<String> {
    let mut broken = Vec::new();
    for (module, text) in sources {
        let tokens = without_tests(&tokens(text));
        let paths = paths(&tokens, module);
        for rule in RULES {
            let within = |rooms: &[&str]| rooms.iter().any(|room| begins(module, room));
            if !within(rule.inside) || within(rule.except) {
                continue;
            }
            for path in &paths {
                let never = rule.never.iter().find(|never| mentions(path, never));
                if let Some(never) = never
                    && !rule.allowed.iter().any(|allowed| begins(path, allowed))
                {
                    broken.push(format!("{module} mentions {path}; {never} is not for this room"));
                }
            }
        }
    }
    broken.sort();
    broken.dedup();
    broken
}

fn mentions(path: &str, pattern: &str) -> bool {
    if !pattern.starts_with(char::is_uppercase) {
        return begins(path, pattern);
    }
    let parts: Vec<_> = path.split("::").collect();
    (0..parts.len()).any(|from| begins(&parts[from..].join("::"), pattern))
}

fn begins(path: &str, pattern: &str) -> bool {
    let mut parts = path.split("::");
    pattern.split("::").all(|wanted| parts.next().is_some_and(|part| wanted == "*" || wanted == part))
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    PathSep,
    Sign(char),
}

/// Words and signs; comments, texts, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
            }
            '"' => i = after_text(&chars, i),
            '\'' => {
                // A character ends with a quote; a lifetime does not.
                let escaped = at(i + 1) == '\\';
                let end = (i + 2..chars.len().min(i + 14))
                    .find(|&end| at(end) == '\'' && (end > i + 2 || !escaped));
                i = match end {
                    Some(end) if escaped || end == i + 2 => end + 1,
                    _ => i + 1,
                };
            }
            ':' if at(i + 1) == ':' => {
                tokens.push(Token::PathSep);
                i += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                let start = i;
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let hashes = (i..).take_while(|&index| at(index) == '#').count();
                if ["r", "br", "cr"].contains(&word.as_str()) && at(i + hashes) == '"' {
                    i = after_raw_text(&chars, i + hashes + 1, hashes);
                } else if ["b", "c"].contains(&word.as_str()) && ['"', '\''].contains(&at(i)) {
                    // The prefix goes with the text that follows.
                } else {
                    tokens.push(Token::Word(word));
                }
            }
            c if c.is_whitespace() => i += 1,
            c => {
                tokens.push(Token::Sign(c));
                i += 1;
            }
        }
    }
    tokens
}

fn after_text(chars: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn after_raw_text(chars: &[char], start: usize, hashes: usize) -> usize {
    let is_end = |&i: &usize| chars[i] == '"' && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'));
    (start..chars.len()).find(is_end).map_or(chars.len(), |i| i + hashes + 1)
}

/// The tokens without items marked `#[cfg(test)]` or as a test.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i] != Token::Sign('#') || tokens.get(i + 1) != Some(&Token::Sign('[')) {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        let end = after_group(tokens, i + 1);
        let words: Vec<_> = tokens[i..end].iter().filter(|token| matches!(token, Token::Word(_))).collect();
        let is = |text: &[&str]| {
            words.iter().copied().eq(text
                .iter()
                .map(|word| Token::Word((*word).into()))
                .collect::<Vec<_>>()
                .iter())
        };
        if is(&["cfg", "test"]) || is(&["test"]) {
            i = after_item(tokens, end);
        } else {
            kept.extend_from_slice(&tokens[i..end]);
            i = end;
        }
    }
    kept
}

/// Behind the group that opens at `open`.
fn after_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// Behind the item that begins at `start`: its first braces or its semicolon.
fn after_item(tokens: &[Token], start: usize) -> usize {
    let is_use = tokens.get(start) == Some(&Token::Word("use".into()));
    let mut i = start;
    while i < tokens.len() {
        match tokens[i] {
            Token::Sign(';') => return i + 1,
            Token::Sign('{') if !is_use => return after_group(tokens, i),
            Token::Sign('(' | '[' | '{') => i = after_group(tokens, i),
            _ => i += 1,
        }
    }
    i
}

/// Every path in the code, resolved against the module it stands in; macros end with `!`.
fn paths(tokens: &[Token], module: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match &tokens[i] {
            Token::Word(word) if word == "use" => i = use_tree(tokens, i + 1, &[], module, &mut found),
            Token::Word(word) => {
                let mut parts = vec![word.clone()];
                i += 1;
                while let (Some(Token::PathSep), Some(Token::Word(next))) = (tokens.get(i), tokens.get(i + 1))
                {
                    parts.push(next.clone());
                    i += 2;
                }
                let is_macro = tokens.get(i) == Some(&Token::Sign('!'));
                if is_macro && parts.len() == 1 {
                    found.push(format!("{word}!"));
                } else if parts.len() > 1 {
                    found.push(resolved(&parts, module));
                }
            }
            _ => i += 1,
        }
    }
    found
}

/// Reads one use tree and returns what stands behind it.
fn use_tree(
    tokens: &[Token],
    mut i: usize,
    before: &[String],
    module: &str,
    found: &mut Vec<String>,
) -> usize {
    let mut parts = before.to_vec();
    loop {
        match tokens.get(i) {
            Some(Token::PathSep) => i += 1,
            Some(Token::Word(word)) if word == "as" => i += 2,
            Some(Token::Word(word)) => {
                parts.push(word.clone());
                i += 1;
            }
            Some(Token::Sign('{')) => {
                i += 1;
                while !matches!(tokens.get(i), None | Some(Token::Sign('}'))) {
                    i = match tokens[i] {
                        Token::Word(_) | Token::PathSep | Token::Sign('{' | '*') => {
                            use_tree(tokens, i, &parts, module, found)
                        }
                        Token::Sign(_) => i + 1,
                    };
                }
                return i + 1;
            }
            Some(Token::Sign('*')) => i += 1,
            _ => {
                found.push(resolved(&parts, module));
                return i;
            }
        }
    }
}

fn resolved(parts: &[String], module: &str) -> String {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut rest = parts.iter().map(String::as_str).peekable();
    match rest.peek() {
        Some(&("self" | "super")) => {}
        _ => base.clear(),
    }
    while let Some(&part @ ("self" | "super")) = rest.peek() {
        if part == "super" {
            base.pop();
        }
        rest.next();
    }
    // `self` at the end of a tree names the module before it.
    base.into_iter().chain(rest.filter(|part| *part != "self")).collect::<Vec<_>>().join("::")
}
