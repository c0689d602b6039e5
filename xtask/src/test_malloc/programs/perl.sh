# Hashes, regular expressions, sorting, and processes.
if [ "$1" = quick ]; then rounds=60000; else rounds=600000; fi
perl -e '
    use strict; use warnings;
    my $rounds = shift;
    my (%seen, @list);
    for my $i (1 .. $rounds) {
        my $key = "key" . ($i * 7919 % 20011);
        push @{ $seen{$key} }, "value $i";
        push @list, { id => $i, name => "n" x ($i % 50), more => [1 .. $i % 5] } if $i % 10 == 0;
    }
    print scalar(keys %seen), " ", scalar(@list), "\n";
    my @sorted = sort { length($b->{name}) <=> length($a->{name}) || $a->{id} <=> $b->{id} } @list;
    print join(",", map { $_->{id} } @sorted[0 .. 9]), "\n";
    my $text = join " ", map { sprintf "%05d:%s", $_, "ab" x ($_ % 7) } 1 .. $rounds / 10;
    my $count = () = $text =~ /(\d+):(?:ab){3}\b/g;
    $text =~ s/(\d{5})/sprintf "<%x>", $1/ge;
    print "$count ", length($text), "\n";
    delete @seen{ grep { /3$/ } keys %seen };
    print scalar(keys %seen), "\n";
    for my $child (1 .. 5) { if (!fork) { my @own = map { "x" x $_ } 1 .. 2000; exit scalar(@own) % 256 } }
    my @codes; while (wait != -1) { push @codes, $? >> 8 } print "@codes\n";
' "$rounds"
perl -MList::Util=sum,shuffle -MData::Dumper -e '$Data::Dumper::Sortkeys = 1; print Dumper({ map { $_ => [1 .. $_] } 1 .. 20 }), sum(1 .. 1000), "\n"'
