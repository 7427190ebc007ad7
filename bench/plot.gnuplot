# Ratios as bars, targets as marks, the reference as a line at one. Called with out='DIRECTORY'.
set terminal svg size 1000,1100 font "sans-serif,12" background "white"
set output out."/ratios.svg"
set title "Snowbank against its references, one run on loopback (right of 1.0: Snowbank is better)"
set xlabel "ratio"
set xrange [0:*]
set yrange [:] reverse
set grid xtics
set key outside bottom center horizontal
set style fill solid 0.6
set lmargin 55
set ytics nomirror
set arrow from 1, graph 0 to 1, graph 1 nohead lw 2 lc rgb "#444444" front
plot out."/ratios.dat" using (0):0:(0):2:($0-0.35):($0+0.35):ytic(1) with boxxyerror lc rgb "#3b82c4" title "ratio", \
     out."/ratios.dat" using 3:0 with points pt 9 ps 1.2 lc rgb "#c0392b" title "target"
