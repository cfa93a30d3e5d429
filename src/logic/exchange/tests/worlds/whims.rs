//! What clients do without being asked.

use super::*;

impl World {
    /// A client cancels, drops, resumes, listens or goes.
    pub(super) fn whim(&mut self) {
        let client = self.dice.roll(self.clients.len());
        let now = self.stage.now;
        match (self.dice.roll(6), self.clients[client]) {
            (0, Some(_)) if !self.open.is_empty() => {
                let at = self.dice.roll(self.open.len());
                let id = self.open[at].id;
                // Whoever cancels, it is their own call that is cancelled.
                self.post(client, &format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
                ));
                let theirs = |open: &mut Open| open.client == client && open.id == id;
                self.cancelled.extend(self.open.extract_if(.., theirs));
            }
            (1 | 2, _) => {
                let streams: Vec<StreamKey> = self
                    .readers
                    .iter()
                    .filter(|(_, r)| r.client == client && r.connected)
                    .map(|(k, _)| *k)
                    .collect();
                if streams.is_empty() {
                    return;
                }
                let stream = streams[self.dice.roll(streams.len())];
                self.stage.exchange.dropped(stream, now);
                let reader = self.readers.get_mut(&stream).unwrap();
                reader.connected = false;
                if reader.modern || reader.last.is_none() {
                    self.gone(stream);
                }
            }
            (3, Some(key)) => {
                let dropped = self.readers.iter().find(|(_, r)| r.client == client && r.last.is_some());
                let Some((old, last)) = dropped.map(|(key, reader)| (*key, reader.last.clone().unwrap()))
                else {
                    return;
                };
                for (other, session) in self.clients.iter().enumerate() {
                    if let Some(session) = session.filter(|_| other != client) {
                        assert_eq!(self.stage.exchange.resume(session, &last, now), None, "another's stream");
                    }
                }
                match self.stage.exchange.resume(key, &last, now) {
                    Some(new) => {
                        let reader = self.readers.remove(&old).unwrap();
                        self.readers.insert(new, Reader { connected: true, ..reader });
                        let all = self.open.iter_mut().chain(&mut self.cancelled);
                        for open in all.filter(|open| open.stream == old) {
                            open.stream = new;
                        }
                    }
                    None => self.gone(old),
                }
            }
            (4, Some(key)) => {
                let stream = self.stage.exchange.listen(key, now);
                self.readers.insert(stream, Reader { client, last: None, connected: true, modern: false });
            }
            (5, Some(key)) if self.alive && self.stage.exchange.is_open() && self.dice.one_in(3) => {
                self.stage.exchange.end_session(key);
                self.hear();
                self.to_answer.retain(|(owner, _)| *owner != client);
                let gone: Vec<StreamKey> =
                    self.readers.iter().filter(|(_, r)| r.client == client).map(|(k, _)| *k).collect();
                for stream in gone {
                    assert_eq!(self.stage.exchange.next(stream), Next::End);
                    self.gone(stream);
                }
                self.open.retain(|open| open.client != client);
                // Who comes instead is another: what is of the one is not for the other.
                self.clients[client] = None;
                let id = self.clients.len();
                self.clients
                    .push(Some(self.stage.client(&id.to_string(), r#"{"sampling":{},"elicitation":{}}"#)));
            }
            _ => {}
        }
    }
}
