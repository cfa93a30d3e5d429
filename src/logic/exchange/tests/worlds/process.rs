//! The process of a world: it answers, reports, logs, asks, dies and comes back.

use super::*;

/// A request as the process knows it.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) client: usize,
    pub(super) number: usize,
    pub(super) can_ask: bool,
}

impl World {
    /// The process reads what it was sent.
    pub(super) fn hear(&mut self) {
        self.stage.settle();
        for message in std::mem::take(&mut self.stage.sent) {
            let text = message.to_string();
            let id = message["id"].to_string();
            match message.method() {
                "tools/call" | "tools/list" => self.asked.push(Asked {
                    token: message["params"]["_meta"]["progressToken"].to_string(),
                    client: owner(&text).unwrap(),
                    number: number(&text).unwrap(),
                    can_ask: message.method() == "tools/call",
                    id,
                }),
                "" => {
                    let whom = self.questions.remove(&id).expect("an answer to what was asked");
                    assert!(message.get("error").is_some() || owner(&text) == Some(whom), "{whom}: {text}");
                }
                // It may heed it or not; if it does not, it goes on speaking of it.
                "notifications/cancelled" if self.dice.one_in(2) => {
                    let id = message["params"]["requestId"].to_string();
                    self.asked.retain(|asked| asked.id != id);
                }
                _ => {}
            }
        }
    }

    /// The process says something.
    pub(super) fn speak(&mut self) {
        if !self.alive {
            return;
        }
        if self.asked.is_empty() || self.dice.one_in(12) {
            let lines = [
                r#"{"jsonrpc":"2.0","id":1,"result":{"owner":99}}"#,
                r#"{"jsonrpc":"2.0","id":"x","error":{"code":1,"message":"","data":{"owner":99}}}"#,
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"owner":99}}"#,
                r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
                "no json at all",
            ];
            return self.stage.line(lines[self.dice.roll(lines.len())]);
        }
        let at = self.dice.roll(self.asked.len());
        let Asked { id, token, client, number, can_ask } = self.asked[at].clone();
        let whose = format!(r#""owner":{client},"number":{number}"#);
        match self.dice.roll(8) {
            0 => self.stage.line(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},{whose}}}}}"#
            )),
            1 => self.stage.line(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"info",{whose}}}}}"#
            )),
            2 if can_ask && !self.is_modern => {
                let question = ["7", "\"7\"", "8"][self.dice.roll(3)];
                // Before it asks the same again it takes back what it asked.
                if self.questions.remove(question).is_none() {
                    self.questions.insert(question.to_owned(), client);
                    self.stage.line(&format!(
                        r#"{{"jsonrpc":"2.0","id":{question},"method":"elicitation/create","params":{{"owner":{client}}}}}"#
                    ));
                } else {
                    self.stage.line(&format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{question}}}}}"#
                    ));
                }
            }
            3 if can_ask && self.is_modern && self.clients[client].is_some() => {
                self.asked.swap_remove(at);
                self.stage.line(&format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{"a":{{"method":"sampling/createMessage","params":{{"owner":{client}}}}}}}}}}}"#
                ));
            }
            4 => {
                self.asked.swap_remove(at);
                self.stage.line(&format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"","data":{{{whose}}}}}}}"#
                ));
            }
            5 => self.stage.line(r#"{"jsonrpc":"2.0","id":3,"#),
            _ => {
                self.asked.swap_remove(at);
                let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{whose}}}}}"#);
                self.stage.line(&line);
                if self.dice.one_in(4) {
                    self.stage.line(&line);
                }
            }
        }
    }

    /// It drains, ends, or is there again.
    pub(super) fn fate(&mut self) {
        self.hear();
        if !self.alive {
            self.asked.clear();
            self.questions.clear();
            if self.is_modern {
                self.stage.attach_modern();
            } else {
                self.stage.attach_legacy();
            }
            self.alive = true;
        } else if self.dice.one_in(3) {
            self.stage.exchange.drain();
        } else {
            self.stage.exchange.lost(self.stage.now);
            self.asked.clear();
            self.questions.clear();
            self.alive = false;
        }
    }
}
