# Ratios as bars from one, targets as marks. Called with out='DIRECTORY'. The axis is logarithmic, so that twice as fast
# is as far from the middle as half as fast.
set terminal svg size 1000,1100 font "sans-serif,12" background "white"
set output out."/ratios.svg"
set title "Snowbank against its references, one run on loopback (right of 1: Snowbank is better)"
set logscale x 2
set xrange [*:*]
set xtics (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8, 16, 32, 64)
set yrange [:] reverse
set grid xtics
set key outside bottom center horizontal
set style fill solid 0.6
set lmargin 50
set ytics nomirror
lesser(a) = a < 1 ? a : 1
greater(a) = a > 1 ? a : 1
plot out."/ratios.dat" using 2:0:(lesser($2)):(greater($2)):($0-0.35):($0+0.35):ytic(1) with boxxyerror lc rgb "#3b82c4" title "ratio", \
     out."/ratios.dat" using (1):0 with lines lw 2 lc rgb "#444444" title "the reference", \
     out."/ratios.dat" using 3:0 with points pt 9 ps 1.2 lc rgb "#c0392b" title "target"
