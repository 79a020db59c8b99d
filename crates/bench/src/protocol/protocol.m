-- The protocol of protocol.pml, a rule for each of its steps. READERS, ENTRIES, FAULTERS and the types Reader and Faulter are defined in front of
-- this text: as scalarsets, whose members are interchangeable, or as ranges.

type
  Next: 0..ENTRIES;
  Entry: 0..ENTRIES - 1;

var
  low: array[Entry] of boolean;
  high: array[Entry] of boolean;
  lock: boolean;
  off: array[Reader] of boolean;
  pending: array[Reader] of boolean;
  reader: array[Reader] of record pc: 0..4; e: Next; l: boolean; h: boolean; end;
  zapper: record pc: 0..6; e: Entry; end;
  faulter: array[Faulter] of record pc: 0..4; e: Entry; end;

startstate begin
  for e: Entry do low[e] := true; high[e] := true; end;
  lock := false;
  for r: Reader do
    off[r] := false; pending[r] := false;
    reader[r].pc := 0; reader[r].e := 0; reader[r].l := false; reader[r].h := false;
  end;
  zapper.pc := 0; zapper.e := 0;
  for f: Faulter do faulter[f].pc := 0; faulter[f].e := 0; end;
end;

ruleset r: Reader do
  rule "interrupts off" reader[r].pc = 0 ==> begin off[r] := true; reader[r].pc := 1; end;
  rule "load the low half" reader[r].pc = 1 ==> begin
    if low[reader[r].e] then
      reader[r].l := true; reader[r].pc := 2;
    else
      reader[r].e := reader[r].e + 1;
      if reader[r].e = ENTRIES then reader[r].pc := 4; end;
    end;
  end;
  rule "load the high half" reader[r].pc = 2 ==> begin reader[r].h := high[reader[r].e]; reader[r].pc := 3; end;
  rule "load the low half again" reader[r].pc = 3 ==> begin
    if low[reader[r].e] != reader[r].l then
      reader[r].pc := 1;
    else
      assert "a mixture of two entries" reader[r].h;
      reader[r].e := reader[r].e + 1;
      reader[r].pc := reader[r].e = ENTRIES ? 4 : 1;
    end;
    reader[r].l := false; reader[r].h := false;
  end;
  rule "interrupts on" reader[r].pc = 4 ==> begin off[r] := false; reader[r].e := 0; reader[r].pc := 0; end;
  rule "interrupt" pending[r] & !off[r] ==> begin pending[r] := false; end;
end;

rule "zapper locks" zapper.pc = 0 & !lock ==> begin lock := true; zapper.pc := 1; end;
rule "zap the low half" zapper.pc = 1 ==> begin low[zapper.e] := false; zapper.pc := 2; end;
rule "zap the high half" zapper.pc = 2 ==> begin
  high[zapper.e] := false;
  if zapper.e = ENTRIES - 1 then zapper.e := 0; zapper.pc := 4; else zapper.e := zapper.e + 1; zapper.pc := 1; end;
end;
rule "interrupt all" zapper.pc = 4 ==> begin for r: Reader do pending[r] := true; end; zapper.pc := 5; end;
rule "all have taken it" zapper.pc = 5 & forall r: Reader do !pending[r] end ==> begin zapper.pc := 6; end;
rule "zapper unlocks" zapper.pc = 6 ==> begin lock := false; zapper.pc := 0; end;

ruleset f: Faulter do
  rule "faulter locks" faulter[f].pc = 0 & !lock ==> begin lock := true; faulter[f].pc := 1; end;
  rule "look" faulter[f].pc = 1 ==> begin faulter[f].pc := low[faulter[f].e] ? 4 : 2; end;
  rule "set the high half" faulter[f].pc = 2 ==> begin high[faulter[f].e] := true; faulter[f].pc := 3; end;
  rule "set the low half" faulter[f].pc = 3 ==> begin low[faulter[f].e] := true; faulter[f].pc := 4; end;
  rule "faulter unlocks" faulter[f].pc = 4 ==> begin
    lock := false;
    faulter[f].e := faulter[f].e = ENTRIES - 1 ? 0 : faulter[f].e + 1;
    faulter[f].pc := 0;
  end;
end;
