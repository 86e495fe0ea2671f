//! What a person reads of a run.

use std::fmt;

use super::{Cause, Verdict};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |list: &mut dyn Iterator<Item = String>| list.collect::<Vec<_>>().join(", ");
        let harm = list(&mut self.blows.iter().map(|(harm, n)| format!("{n} × {harm}")));
        writeln!(f, "  harm      {harm}")?;
        writeln!(
            f,
            "  sent      {} tried, {} confirmed, {} perhaps stored, {} not stored",
            self.tried, self.confirmed, self.unsure, self.refused
        )?;
        writeln!(
            f,
            "  lost      {}; the last confirmed one handled {:.1?} after the end",
            self.lost.len(),
            self.settled_after
        )?;
        let twice: usize = self.twice.values().sum();
        let causes = list(&mut self.twice.iter().map(|(cause, n)| format!("{cause} {n}")));
        writeln!(f, "  twice     {twice} ({causes})")?;
        writeln!(
            f,
            "  order     {} message groups, {} out of order",
            self.groups,
            self.out_of_order.len()
        )?;
        let (stall, around) = &self.stall;
        let around = list(&mut around.iter().map(ToString::to_string));
        writeln!(
            f,
            "  stall     {} ms ({around}); with no harm near {} ms",
            stall, self.stall_in_peace
        )?;
        let mut times: Vec<_> = self.stops.iter().map(|stop| stop.took).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let longest = times.last().copied().unwrap_or_default();
        let odd = self.stops.iter().filter(|stop| !stop.is_clean());
        let odd = list(&mut odd.map(|stop| match stop.status {
            Some(status) => format!("{} {status}", stop.process),
            None => format!("{} did not end", stop.process),
        }));
        write!(
            f,
            "  stops     {}, median {median:.2?}, longest {longest:.2?}; not clean: [{odd}]",
            times.len()
        )?;
        for (what, ids) in [
            ("LOST", &self.lost),
            ("REPORTED AS NOT STORED, AND HANDLED", &self.lied),
            ("UNEXPLAINED", &self.unexplained),
            ("OUT OF ORDER", &self.out_of_order),
            ("ENDED BADLY", &self.unclean),
            ("ENDED BY ITSELF", &self.dead),
        ] {
            for id in ids.iter().take(10) {
                write!(f, "\n  {what}: {id}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SentTwice => "sent twice",
            Self::Killed => "killed",
            Self::Frozen => "frozen",
            Self::BrokerRestarted => "broker restarted",
            Self::StoppedInOrder => "stopped, in order",
            Self::StopNotClean => "stop not clean",
            Self::Unexplained => "unexplained",
        })
    }
}
